"""Prometheus metrics: the fields of `RelayStatus`, and three histograms.

Counters stay where they are counted and reach this module as a snapshot, so that page, API and
metrics always agree. Only this module imports prometheus_client.
"""

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relayd import __version__
from relayd.logs import printable
from relayd.relay.metrics_sound import sound_series
from relayd.relay.status import DemandState, RelayState, RelayStatus

AGE_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0)
"""s. The promise is p95 under one frame interval (50 ms at 20 fps): fine steps below it; above
it the steps of a stage that holds frames back, up to the source's stall limit."""
GAP_BUCKETS = (
    *(0.03, 0.035, 0.04, 0.045, 0.0475, 0.05, 0.0525, 0.055, 0.06, 0.065),
    *(0.075, 0.1, 0.15, 0.25, 1.0),
)
"""s. Fine steps around the 50 ms of 20 fps show jitter; 35 to 65 ms is what an undisturbed machine
keeps to; 0.1 is the longest gap that is promised, so anything above it is a fault."""
DELAY_BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
"""s. Below 0.15 a call feels direct (ITU-T G.114), above 0.4 people talk over each other; 3 s
is as far as the meter looks back."""


class Metrics:
    """One relay's metrics, in their own registry; `observe_…` may be called in any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._frame_age = Histogram(
            "relayd_frame_age_seconds",
            "Age of a swapped frame when it was given to the outputs",
            buckets=AGE_BUCKETS,
            registry=self._registry,
        )
        self._output_gap = Histogram(
            "relayd_output_gap_seconds",
            "Time between two frames on an output",
            buckets=GAP_BUCKETS,
            registry=self._registry,
        )
        self._delay = Histogram(
            "relayd_delay_seconds",
            "Time from a source frame's decoding to its swapped picture on the outputs",
            buckets=DELAY_BUCKETS,
            registry=self._registry,
        )

    def observe_frame_age(self, seconds: float) -> None:
        """Record the age of a frame when an output takes it, in s."""
        self._frame_age.observe(seconds)

    def observe_output_gap(self, seconds: float) -> None:
        """Record the time between two frames on an output, in s."""
        self._output_gap.observe(seconds)

    def observe_delay(self, seconds: float) -> None:
        """Record one glass-to-glass delay, in s."""
        self._delay.observe(seconds)

    def render(self, status: RelayStatus) -> tuple[bytes, str]:
        """Return all series in Prometheus' text format, and its content type."""
        return generate_latest(_Series(status, self._registry)), CONTENT_TYPE_LATEST


class _Series(Collector):
    """The series of a snapshot, then those of the histograms."""

    def __init__(self, status: RelayStatus, histograms: CollectorRegistry) -> None:
        self._status = status
        self._histograms = histograms

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield InfoMetricFamily(
            "relayd_build",
            "What runs here",
            {
                "version": __version__,
                "python": platform.python_version(),
                "relay": printable(status.name),
            },
        )
        state = GaugeMetricFamily(
            "relayd_state", "1 for the state that the relay is in", labels=["state"]
        )
        for one in RelayState:
            state.add_metric([one.value], float(one is status.state))
        yield state
        yield _gauge("relayd_state_seconds", "Time in the present state", status.since)
        yield _gauge("relayd_uptime_seconds", "Time since the start", status.uptime)
        yield _gauge("relayd_healthy", "1 while frames flow as configured", status.healthy)
        yield _gauge("relayd_source_alive", "1 while the source gives frames", status.source_alive)
        yield _gauge(
            "relayd_source_behind_seconds",
            "Time that the source's frames are late because decoding is too slow",
            status.source_behind,
        )
        yield _gauge(
            "relayd_source_buffer_seconds",
            "Time that source frames wait so that bursts are played evenly",
            status.source_buffer,
        )
        yield self._outputs()
        yield _gauge("relayd_output_fps", "Frames a second given to the outputs", status.fps)
        yield _counters("relayd_frames", "Frames by stage", "stage", status.frames)
        yield self._dropped()
        yield _counters("relayd_reconnects", "Reconnects by part", "part", status.reconnects)
        yield _gauge(
            "relayd_sessions_open", "Sessions that the service may bill", status.sessions_open
        )
        yield CounterMetricFamily(
            "relayd_session_seconds", "Time that sessions were open", status.session_seconds
        )
        yield CounterMetricFamily(
            "relayd_sessions_doubtful",
            "Creates whose answer was lost: a session may be open unknown",
            status.sessions_doubtful,
        )
        yield _gauge(
            "relayd_session_seconds_today",
            "Time that sessions on this journal were open since local midnight",
            status.spent_today,
        )
        yield _gauge(
            "relayd_daily_limit_seconds",
            "Time a day that sessions may be open; 0 for no limit",
            status.daily_limit,
        )
        yield self._readers()
        on_demand = GaugeMetricFamily(
            "relayd_on_demand", "1 for where sessions on demand stand", labels=["state"]
        )
        for where in DemandState:
            on_demand.add_metric([where.value], float(where is status.on_demand))
        yield on_demand
        if status.credit is not None:
            yield _gauge(
                "relayd_service_credit", "Credit that the service last reported", status.credit
            )
        if status.sound is not None:
            yield from sound_series(status.sound)
        yield from self._histograms.collect()

    def _dropped(self) -> Metric:
        family = CounterMetricFamily(
            "relayd_frames_dropped", "Frames dropped by stage", labels=["stage", "reason"]
        )
        for name, count in _in_order(self._status.dropped):
            stage, _, reason = name.partition(".")
            family.add_metric([stage, reason], count)
        return family

    def _outputs(self) -> Metric:
        family = GaugeMetricFamily(
            "relayd_output_up",
            "1 while an output works, 0 while it is lost or not connected yet",
            labels=["output"],
        )
        for name in sorted(self._status.outputs):
            family.add_metric([printable(name)], float(name not in self._status.lost_outputs))
        return family

    def _readers(self) -> Metric:
        family = GaugeMetricFamily(
            "relayd_camera_readers", "Programs that read a camera, if known", labels=["device"]
        )
        for device, count in sorted(self._status.readers.items()):
            if count is not None:
                family.add_metric([printable(device)], count)
        return family


def _in_order(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Return the counts in a stable order."""
    return sorted(counts.items())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counters(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in _in_order(counts):
        family.add_metric([value], count)
    return family
