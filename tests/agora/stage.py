"""What the tests of whole relays over Agora play with: the course of a fault, seen from outside."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from relayd.logs import LogEvent
from tests.support.stage import RunningRelay, longest_gap_allowed, wait_for

FPS = 20
SEEN_IN = 1.0
"""s beyond a limit in which its effect must show: what is promised, and a busy machine."""

Rgb = NDArray[np.uint8]


def recorded(file: Path) -> Iterator[Rgb]:
    """Return every picture of a recording, each fourth pixel of each fourth row."""
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)[::4, ::4]


@dataclass(frozen=True, slots=True)
class Row:
    """What a fault did, as a line of the table."""

    fault: str
    shown: str
    """What the outputs showed, from the fault until all was well again."""
    states: str
    """The relay's, one after the other."""
    reason: str
    """Of the first state that was neither live nor standby."""
    events: str
    """Of the log."""
    to_standby: float | None
    """s from the fault to the first standby picture; None where none was shown."""
    to_live: float | None
    """s from the fault's end to swapped pictures; None where they never ceased."""
    gap: float
    """s, the longest between two pictures of the outputs since the relay's start."""


class Table:
    """Collects the rows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Keep a row, and print it for a program to read."""
        self.rows.append(row)
        print(f"\n{json.dumps(asdict(row))}")  # noqa: T201 - report

    def print(self) -> None:
        """Print all rows for a person to read."""
        names = [one.name for one in fields(Row)]
        lines = [names, ["---"] * len(names)]
        lines += [[_cell(getattr(row, name)) for name in names] for row in self.rows]
        print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))  # noqa: T201 - report


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else value


class Course:
    """Follows a fault from its begin, which is now, to its end and beyond."""

    def __init__(self, relay: RunningRelay, fault: str) -> None:
        self.relay, self.fault = relay, fault
        psutil.cpu_percent()  # the next call tells of the time from here on
        self._log_from = relay.log.stat().st_size
        self.before = relay.status()
        self.now = self.before
        self._began = self._ended = time.monotonic()
        self._to_standby: float | None = None
        self._to_live: float | None = None

    def until(self, what: str, done: Callable[[], object], within: float) -> None:
        """Wait until `done()` holds after a look at the status, which `now` keeps."""

        def look() -> object:
            self.now = self.relay.status()
            was_live = self.before["state"] == "live"
            if was_live and self._to_standby is None and self.shown("standby"):
                self._to_standby = time.monotonic() - self._began
            return done()

        try:
            wait_for(f"{self.fault}: {what}", look, within, every=0.02)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}; log:\n{self.log()[-6000:]}")

    def until_standby(self, limit: float) -> None:
        """Wait until the outputs show standby, at most shortly after `limit` seconds."""
        self.until("standby", lambda: self._to_standby is not None, limit + SEEN_IN)

    def until_state(self, state: str, within: float) -> None:
        """Wait until the relay says that it is in this state."""
        self.until(f"state {state}", lambda: self.now["state"] == state, within)

    def until_repair(self, part: str, within: float) -> None:
        """Wait until the relay replaces its link or its session."""
        self.until(
            f"another {part}",
            lambda: self.now["reconnects"][part] > self.before["reconnects"][part],
            within,
        )

    def end(self) -> None:
        """Let the fault end now, not when it began."""
        self._ended = time.monotonic()

    def until_live(self, within: float) -> None:
        """Wait until the relay is live and shows swapped pictures, some new ones even."""
        fresh = self.now["frames"]["fresh"]

        def live() -> bool:
            is_live: bool = self.now["state"] == "live"
            return is_live and self.now["frames"]["fresh"] > fresh

        self.until("live", live, within)
        self._to_live = time.monotonic() - self._ended

    def shown(self, kind: str) -> int:
        """Pictures of this kind that the outputs showed since the fault."""
        return int(self.now["frames"][kind] - self.before["frames"][kind])

    def log(self) -> str:
        """What the relay logged since the fault."""
        return self.relay.log.read_bytes()[self._log_from :].decode()

    def states(self) -> list[str]:
        """The relay's states since the fault, one after the other."""
        first = str(self.before["state"])
        changes = [
            str(event["now"]) for event in self._logged() if event["event"] == LogEvent.RELAY_STATE
        ]
        return _without_repeats([first, *changes])

    def note(self, table: Table, words: str = "") -> None:
        """Take the row, with words of what was shown, and hold the relay to its longest gap."""
        self.now = self.relay.status()
        self.note_end(table, words)
        limit = max(longest_gap_allowed(), self.before["longest_gap"])
        assert self.now["longest_gap"] <= limit, f"{self.fault} left a gap"

    def note_end(self, table: Table, words: str) -> None:
        """Take the row of a relay that cannot be asked any more."""
        shown = " ".join(filter(None, (self._words(), words)))
        table.add(self._row(shown))

    def _row(self, shown: str) -> Row:
        events = [event for event in self._logged() if event["event"] != LogEvent.RELAY_STATE]
        reasons = [
            event["reason"]
            for event in self._logged()
            if event["event"] == LogEvent.RELAY_STATE and event["now"] not in {"live", "standby"}
        ]
        return Row(
            fault=self.fault,
            shown=shown,
            states=" > ".join(self.states()),
            reason=next(filter(None, reasons), ""),
            events=", ".join(_without_repeats([str(event["event"]) for event in events])),
            to_standby=self._to_standby,
            to_live=self._to_live,
            gap=self.now["longest_gap"],
        )

    def _words(self) -> str:
        last, standby = (self.shown(kind) / FPS for kind in ("repeated", "standby"))
        if not standby and self._to_live is None:
            return "swapped"
        return f"last {last:.1f} s, standby {standby:.1f} s"

    def _logged(self) -> list[dict[str, Any]]:
        """The log's events; other lines are the SDK's, or a traceback."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]


def _without_repeats(words: list[str]) -> list[str]:
    return [word for number, word in enumerate(words) if number == 0 or word != words[number - 1]]
