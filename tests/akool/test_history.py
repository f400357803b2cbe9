import json
from pathlib import Path

import pytest

from relayd.akool.history import ClosedSession, History, Spent


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.jsonl")


def test_what_is_noted_is_read_again(history: History) -> None:
    assert history.sessions() == []
    history.note("one", "studio", 100.0, 190.5)
    history.note("two", "studio", 200.0, 230.0)
    assert history.sessions() == [
        ClosedSession("one", "studio", 100.0, 190.5, 90.5),
        ClosedSession("two", "studio", 200.0, 230.0, 30.0),
    ]


def test_a_span_counts_only_the_part_of_a_session_within_it(history: History) -> None:
    history.note("before", "studio", 0.0, 100.0)
    history.note("over the edge", "studio", 80.0, 130.0)
    history.note("within", "studio", 150.0, 160.0)
    history.note("still going at the end", "studio", 190.0, 400.0)
    history.note("after", "studio", 500.0, 600.0)
    assert history.spent(100.0, 200.0) == Spent(3, 30.0 + 10.0 + 10.0)


@pytest.mark.parametrize("seconds", [b"1e300", b"1" + b"0" * 400, b"-1", b'"x"', b"NaN"])
def test_an_impossible_duration_is_replaced_by_the_clock_times(
    history: History, seconds: bytes
) -> None:
    entry = b'{"id": "a", "relay": "r", "opened": 100.0, "closed": 110.0, "seconds": %s}\n'
    history.path.write_bytes(entry % seconds)
    assert history.spent(0.0, 1000.0) == Spent(1, 10.0)


def test_a_clock_that_was_set_back_gives_no_negative_cost(history: History) -> None:
    history.note("odd", "studio", 500.0, 100.0)
    assert history.spent(0.0, 1000.0) == Spent(0, 0.0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"id": 1, "relay": "r", "opened": 1.0, "closed": 2.0}',
        b'{"id": "a", "relay": "r", "opened": "1", "closed": 2.0}',
        b'{"id": "a", "relay": "r", "opened": 1.0}',
        b'{"id": "a", "relay": "r", "opened": 1.0, "closed": NaN}',
        b'{"id": "a", "relay": "r", "opened": 1.0, "closed": 1e999}',
        b'{"id": "a", "relay": "r", "opened": 1.0, "closed": 1e300}',
        b'{"id": "a", "relay": "r", "opened": -1e15, "closed": 2.0}',
        b'{"id": "a", "relay": "r", "opened": 1.0, "closed": 1' + b"0" * 400 + b"}",
        b"[" * 100_000,
    ],
)
def test_a_broken_line_is_left_out_and_the_others_count(history: History, line: bytes) -> None:
    history.note("one", "studio", 100.0, 110.0)
    with history.path.open("ab") as file:
        file.write(line + b"\n")
    history.note("two", "studio", 200.0, 210.0)
    assert [session.id for session in history.sessions()] == ["one", "two"]


def test_the_noted_seconds_count_whatever_happened_to_the_clock(history: History) -> None:
    history.note("set forward", "studio", 0.0, 21_613.0, seconds=13.0)
    history.note("set back", "studio", 50_000.0, 40_000.0, seconds=800.0)
    assert history.spent(0.0, 1e6) == Spent(2, 813.0)
    assert history.spent(39_500.0, 1e6) == Spent(1, 500.0)


@pytest.mark.parametrize("seconds", ["null", "-5", "NaN", "1e999", '"7"'])
def test_a_line_with_invalid_seconds_counts_by_its_times(history: History, seconds: str) -> None:
    line = f'{{"id": "a", "relay": "r", "opened": 1.0, "closed": 9.0, "seconds": {seconds}}}\n'
    history.path.write_text(line)
    assert history.spent(0.0, 100.0) == Spent(1, 8.0)


def test_a_line_that_a_full_disk_cut_short_costs_no_other(history: History) -> None:
    history.path.write_text('{"id": "cut')
    history.note("one", "studio", 100.0, 110.0)
    assert [session.id for session in history.sessions()] == ["one"]


def test_another_processs_lines_are_seen(history: History) -> None:
    history.note("one", "studio", 100.0, 110.0)
    assert len(history.sessions()) == 1
    History(history.path).note("two", "kitchen", 200.0, 210.0)
    assert len(history.sessions()) == 2


def test_its_lines_are_for_other_programs_too(history: History) -> None:
    history.note("one", "studio", 100.0, 190.5)
    assert json.loads(history.path.read_text())["seconds"] == 90.5
