"""The Prometheus series of the sound; see `relayd.relay.metrics`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from relayd.logs import printable
from relayd.relay.status import SoundStatus
from relayd.sound.gate import Silence


def _error(sound: SoundStatus) -> float:
    return sound.delay - sound.target if sound.target and not sound.silent_for else 0.0


def sound_series(sound: SoundStatus) -> Iterator[Metric]:
    """Yield each series of a snapshot."""
    for name, text, value in (
        ("delay_seconds", "Time from capture until the sound is heard", sound.delay),
        ("target_seconds", "Time that it should take, as the picture does", sound.target),
        ("error_seconds", "How much later than it should it is heard", _error(sound)),
        ("lost", "1 while no sound comes from where it is captured", float(bool(sound.trouble))),
        ("level_dbfs", "Level of the last 100 ms that were played", sound.level),
        ("rate_ppm", "How much faster than spoken it is played, in millionths", sound.rate_ppm),
    ):
        yield GaugeMetricFamily(f"relayd_sound_{name}", text, value)
    muted = GaugeMetricFamily(
        "relayd_sound_muted", "1 for each reason why nothing may be heard", labels=["reason"]
    )
    for reason in Silence:
        muted.add_metric([reason.value], float(reason.value in sound.silent_for))
    yield muted
    blocks = CounterMetricFamily(
        "relayd_sound_blocks", "Blocks of 10 ms by stage", labels=["stage"]
    )
    for stage, count in sorted(sound.blocks.items()):
        blocks.add_metric([stage], count)
    yield blocks
    dropped = CounterMetricFamily(
        "relayd_sound_dropped", "Blocks left out", labels=["stage", "reason"]
    )
    for name, count in sorted(sound.dropped.items()):
        dropped.add_metric(name.split(".", 1), count)
    yield dropped
    yield CounterMetricFamily(
        "relayd_sound_gap_seconds", "Silence put into holes of the source's sound", sound.gaps
    )
    cuts = CounterMetricFamily("relayd_sound_cuts", "Cuts in the sound by kind", labels=["kind"])
    for kind, count in sorted(sound.cuts.items()):
        cuts.add_metric([kind], count)
    yield cuts
    readers = GaugeMetricFamily(
        "relayd_microphone_readers", "Programs that read a microphone, if known", labels=["name"]
    )
    for name, listeners in sorted(sound.listeners.items()):
        if listeners is not None:
            readers.add_metric([printable(name)], listeners)
    yield readers
