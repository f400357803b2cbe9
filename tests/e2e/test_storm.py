"""Promise 2 under kills: relay and worker die at any moment, and no session stays open for it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from relayd.akool.journal import Journal
from tests.support.interpreter import ROOT
from tests.support.stage import Emulator, relay_config, wait_for

pytestmark = pytest.mark.relay

KILLS = int(os.environ.get("RELAYD_TEST_KILLS", "12"))
"""500 take about 25 minutes."""
LONGEST_LIFE = 4.0
"""s that a relay lives before it or its worker is killed: it is live after about two."""


@contextmanager
def forked_relays() -> Iterator[Callable[[Path], psutil.Process]]:
    """Return what starts a relay in a few hundredths of a second."""
    nursery = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "support" / "forks.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    assert nursery.stdout.readline() == "ready\n"

    def start(config: Path) -> psutil.Process:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(f"run -c {config}\n")
        nursery.stdin.flush()
        return psutil.Process(int(nursery.stdout.readline()))

    try:
        yield start
    finally:
        nursery.stdin.close()
        nursery.wait(10)
        nursery.stdout.close()


def kill_at_random(relay: psutil.Process, chance: random.Random) -> str:
    """Kill the relay after a while, in one of three cases after its worker; say what was killed."""
    time.sleep(chance.uniform(0.0, LONGEST_LIFE))
    killed = "relay"
    workers = [child for child in relay.children() if "relayd.rtc.worker" in child.cmdline()]
    if workers and chance.random() < 1 / 3:
        chance.choice(workers).kill()
        time.sleep(chance.uniform(0.0, 1.0))
        killed = "worker and relay"
    relay.kill()
    wait_for("its end", lambda: not relay.is_running(), 5)
    return killed


@pytest.mark.timeout(60 + 8 * KILLS)
def test_kills_at_random_moments_leave_no_session_but_such_as_are_told_to_be_in_doubt(
    emulator: Emulator, tmp_path: Path
) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(relay_config(emulator, "lavfi:testsrc2=size=320x240:rate=20", tmp_path))
    journal, chance = Journal(tmp_path / "state"), random.Random(20261126)
    killed: list[str] = []
    doubts = most_open = 0
    with forked_relays() as start:
        for _ in range(KILLS):
            killed.append(kill_at_random(start(config), chance))
            doubts += len(journal.doubts())
            for told in (tmp_path / "state" / "doubts").glob("*.json"):
                told.unlink()  # else the third would end all tries, as it must
            most_open = max(most_open, len(emulator.sessions()))
        last = start(config)
        wait_for("what was left is closed", lambda: owners(journal) <= {last.pid}, 30)
        last.send_signal(signal.SIGTERM)
        wait_for("its end", lambda: not last.is_running(), 30)
    unknown = emulator.open()
    print(  # noqa: T201 - figures for people
        f"\n{len(killed)} kills ({killed.count('relay')} of the relay alone),"
        f" {len(emulator.created())} sessions, at most {most_open} open at once,"
        f" {doubts} in doubt, {len(unknown)} open at the end"
    )
    assert owners(journal) == set()
    assert len(unknown) <= doubts
    emulator.reset()


def owners(journal: Journal) -> set[int]:
    """Return the processes whose sessions are on the journal."""
    return {record.pid for record in journal.entries()}
