"""Who reads a real camera, and that a session is asked for while somebody does.

0.12.7 counts openings, 0.15 tells who streams. The relay runs as a user who may look into nobody
else's processes, as in a unit. Sessions themselves are those of test_browser.py.
"""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.logs import LogEvent
from tests.vm.guest import Guest, Note, Reload, stopwatch
from tests.vm.relays import CONFIG, HOME, Nursery, Reader, config

pytestmark = pytest.mark.vm

VIDEO = "[video]\nwidth = 320\nheight = 256\nfps = 5"
GRACE = 3.0  # s
LONGER_THAN_A_PROBE = 2.0  # s
USER = "nobody"
AS_USER = f"setpriv --reuid={USER} --regid=nogroup --groups=video"
TWO_CAMERAS = "devices=2 video_nr=0,1 card_label=relayd,other exclusive_caps=1,1"
ASKED_FOR = '"now": "opening", "reason": ""'


@pytest.fixture
def source(guest: Guest, small_clip: Path) -> Iterator[str]:
    """A person's video, in a folder of the user's own, with Python within their reach."""
    shutil.copy(small_clip, guest.folder)
    guest.run(
        f"mkdir -p {HOME} && rm -rf {HOME}/* && cp /run/vm/{small_clip.name} {HOME}"
        f" && chown -R {USER} {HOME};"
        " way=$(readlink -f .venv/bin/python);"
        ' while [ "$way" != / ]; do way=$(dirname "$way"); chmod o+x "$way"; done'
    )
    yield f"{HOME}/{small_clip.name}"
    guest.run(f"rm -rf {HOME}/* && chown root {HOME}")


@pytest.mark.parametrize("guest", ["0.12", "0.15"], indirect=True)
def test_a_reader_is_seen_and_neither_a_probe_nor_who_uses_another_camera_is_one(
    guest: Guest, nursery: Nursery, source: str, reload_module: Reload, note: Note
) -> None:
    seconds = stopwatch(note, f"readers, {guest.loopback}")
    reload_module(TWO_CAMERAS)
    settings = config(source=source, device="/dev/video0", on_demand=f"grace = {GRACE}", more=VIDEO)
    relay = nursery.run(settings, user=USER)
    relay.wait_for(
        '"by": "OpenTracker"' if guest.machine.series == "0.12" else '"by": "ClientUsage"'
    )
    guest.run("v4l2-ctl -d /dev/video0 --all")
    if guest.machine.series == "0.12":  # where openings count; another device's are told as well
        guest.run(f"exec 3<>/dev/video1; sleep {LONGER_THAN_A_PROBE}")
    assert relay.events(LogEvent.RELAY_DEMAND) == []
    assert relay.ask("/healthz", "-s -o /dev/null -w %{http_code}") == "200"

    began = time.monotonic()
    reader = Reader(guest)
    relay.wait_for(ASKED_FOR, 20)
    seconds("start of a reader to a session being asked for", began)
    assert 'relayd_camera_readers{device="/dev/video0"} 1.0' in relay.ask("/metrics")

    # A relay that comes later finds it, too; or a session is asked for because nobody can know.
    assert "denied" in guest.run(f"{AS_USER} ls /proc/{reader.pid}/fd", status=2)
    assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
    began = time.monotonic()
    relay = nursery.start("run", "-c", CONFIG, user=USER)
    relay.wait_for(ASKED_FOR, 20)
    seconds("start of relayd to a session being asked for, with a reader there before", began)

    began = time.monotonic()
    reader.stop()
    relay.wait_for('"was": "(grace|closing)", "now": "idle"')
    assert seconds(f"its end to nothing being kept (grace {GRACE:g} s)", began) > GRACE
    assert 'relayd_camera_readers{device="/dev/video0"} 0.0' in relay.ask("/metrics")
    assert relay.stop() == 0
    assert "Traceback" not in relay.log
