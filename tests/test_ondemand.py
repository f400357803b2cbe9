"""Who looks, and what that is worth; time is the test's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relayd.configfile import load_tree
from relayd.ondemand import Demand, SessionLife, is_on_demand
from relayd.relay.status import DemandState
from tests.test_clock import FakeClock

GRACE = 30.0
CAMERA = "/dev/video0"
IDLE, OPENING, LIVE = DemandState.IDLE, DemandState.OPENING, DemandState.LIVE
KEPT, CLOSING, OFF = DemandState.GRACE, DemandState.CLOSING, DemandState.OFF
NONE, UNDERWAY, UP = SessionLife.NONE, SessionLife.UNDERWAY, SessionLife.LIVE


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def demand(clock: FakeClock) -> Demand:
    return Demand(enabled=True, grace=GRACE, clock=clock)


def bring_to(demand: Demand, clock: FakeClock, state: DemandState) -> None:
    """Walk there as a relay would."""
    if state is IDLE:
        return
    demand.hear_readers(CAMERA, 1)
    demand.hear_session(UNDERWAY if state is OPENING else UP)
    if state in {KEPT, CLOSING}:
        demand.hear_readers(CAMERA, 0)
    if state is CLOSING:
        clock.time += GRACE
        demand.step()
    if state is OFF:
        demand.hear_readers(CAMERA, None)
    assert demand.state is state


def comes(demand: Demand, clock: FakeClock) -> None:
    demand.hear_readers(CAMERA, 1)


def leaves(demand: Demand, clock: FakeClock) -> None:
    demand.hear_readers(CAMERA, 0)


def is_unseen(demand: Demand, clock: FakeClock) -> None:
    demand.hear_readers(CAMERA, None)


def goes_live(demand: Demand, clock: FakeClock) -> None:
    demand.hear_session(UP)


def breaks(demand: Demand, clock: FakeClock) -> None:
    demand.hear_session(UNDERWAY)


def is_over(demand: Demand, clock: FakeClock) -> None:
    demand.hear_session(NONE)


def a_while_passes(demand: Demand, clock: FakeClock) -> None:
    clock.time += GRACE - 0.1
    demand.step()


def grace_passes(demand: Demand, clock: FakeClock) -> None:
    clock.time += GRACE
    demand.step()


TRANSITIONS: dict[DemandState, dict[Callable[[Demand, FakeClock], None], DemandState]] = {
    IDLE: {
        comes: OPENING, leaves: IDLE, is_unseen: OFF, goes_live: IDLE, breaks: IDLE,
        is_over: IDLE, a_while_passes: IDLE, grace_passes: IDLE,
    },
    OPENING: {
        comes: OPENING, leaves: KEPT, is_unseen: OFF, goes_live: LIVE, breaks: OPENING,
        is_over: OPENING, a_while_passes: OPENING, grace_passes: OPENING,
    },
    LIVE: {
        comes: LIVE, leaves: KEPT, is_unseen: OFF, goes_live: LIVE, breaks: OPENING,
        is_over: OPENING, a_while_passes: LIVE, grace_passes: LIVE,
    },
    KEPT: {
        comes: LIVE, leaves: KEPT, is_unseen: OFF, goes_live: KEPT, breaks: KEPT,
        is_over: KEPT, a_while_passes: KEPT, grace_passes: CLOSING,
    },
    CLOSING: {
        comes: CLOSING, leaves: CLOSING, is_unseen: OFF, goes_live: CLOSING, breaks: CLOSING,
        is_over: IDLE, a_while_passes: CLOSING, grace_passes: CLOSING,
    },
    OFF: {
        comes: LIVE, leaves: KEPT, is_unseen: OFF, goes_live: OFF, breaks: OFF,
        is_over: OFF, a_while_passes: OFF, grace_passes: OFF,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "happens", "follows"),
    [(state, happens, to) for state, row in TRANSITIONS.items() for happens, to in row.items()],
    ids=lambda value: getattr(value, "__name__", getattr(value, "value", None)),
)
def test_each_state_answers_each_event(
    demand: Demand,
    clock: FakeClock,
    state: DemandState,
    happens: Callable[[Demand, FakeClock], None],
    follows: DemandState,
):
    bring_to(demand, clock, state)
    happens(demand, clock)
    assert demand.state is follows


def test_the_table_names_every_state():
    assert set(TRANSITIONS) == set(DemandState)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (IDLE, (False, False, False)),
        (OPENING, (True, True, True)),
        (LIVE, (True, True, True)),
        (KEPT, (False, True, True)),
        (CLOSING, (False, False, False)),
        (OFF, (True, True, True)),
    ],
)
def test_a_session_is_opened_for_who_looks_and_kept_for_who_comes_back(
    demand: Demand, clock: FakeClock, state: DemandState, expected: tuple[bool, bool, bool]
):
    bring_to(demand, clock, state)
    assert (demand.asks, demand.keeps, demand.needs_source) == expected


def test_the_grace_time_begins_anew_with_each_leaving(demand: Demand, clock: FakeClock):
    bring_to(demand, clock, KEPT)
    clock.time += GRACE - 1
    demand.hear_readers(CAMERA, 1)
    demand.hear_readers(CAMERA, 0)
    clock.time += GRACE - 1
    demand.step()
    assert demand.state is KEPT
    clock.time += 1
    demand.step()
    assert demand.state is CLOSING


@pytest.mark.parametrize(
    ("passed", "grace", "follows"),
    [
        (10.0, 10.0, CLOSING),
        (10.0, 10.1, KEPT),
        (10.0, 0.0, CLOSING),
        (GRACE - 0.1, 2 * GRACE, KEPT),
        (GRACE, 2 * GRACE, CLOSING),
    ],
)
def test_another_grace_time_counts_from_when_the_last_reader_left(
    demand: Demand, clock: FakeClock, passed: float, grace: float, follows: DemandState
):
    bring_to(demand, clock, KEPT)
    clock.time += passed
    demand.step()
    demand.set_grace(grace)
    assert demand.state is follows
    if follows is KEPT:
        clock.time += grace - passed
        demand.step()
        assert demand.state is CLOSING


@pytest.mark.parametrize("state", [IDLE, OPENING, LIVE, CLOSING, OFF])
def test_another_grace_time_changes_nothing_but_how_long_who_left_is_waited_for(
    demand: Demand, clock: FakeClock, state: DemandState
):
    bring_to(demand, clock, state)
    demand.set_grace(0.0)
    assert demand.state is state


def test_another_grace_time_is_the_one_of_who_leaves_later(demand: Demand, clock: FakeClock):
    bring_to(demand, clock, LIVE)
    demand.set_grace(5.0)
    demand.hear_readers(CAMERA, 0)
    clock.time += 4.9
    demand.step()
    assert demand.state is KEPT
    clock.time += 0.1
    demand.step()
    assert demand.state is CLOSING


def test_who_comes_while_a_session_is_closed_wakes_the_source_and_gets_the_next_session(
    demand: Demand, clock: FakeClock
):
    bring_to(demand, clock, CLOSING)
    demand.hear_readers(CAMERA, 1)
    assert not demand.asks
    assert demand.needs_source
    demand.hear_session(NONE)
    assert demand.state is OPENING


def test_one_of_two_cameras_being_read_is_enough_and_the_last_reader_counts(
    demand: Demand, clock: FakeClock
):
    demand.hear_readers("/dev/video0", 0)
    demand.hear_readers("/dev/video1", 2)
    demand.hear_session(UP)
    demand.hear_readers("/dev/video0", 1)
    demand.hear_readers("/dev/video1", 0)
    assert demand.state is LIVE
    demand.hear_readers("/dev/video0", 0)
    assert demand.state is KEPT
    assert demand.readers == {"/dev/video0": 0, "/dev/video1": 0}


def test_one_camera_whose_readers_are_unseen_turns_it_off_until_they_are_seen(
    demand: Demand, clock: FakeClock
):
    demand.hear_readers("/dev/video0", 0)
    demand.hear_readers("/dev/video1", None)
    assert demand.state is OFF
    demand.hear_readers("/dev/video1", 0)
    assert demand.state is KEPT
    demand.hear_session(NONE)
    clock.time += GRACE
    demand.step()
    assert demand.state is IDLE


def test_only_who_comes_to_nothing_is_a_fresh_arrival(demand: Demand, clock: FakeClock):
    bring_to(demand, clock, KEPT)
    assert demand.arrivals == 1
    demand.hear_readers(CAMERA, 1)
    assert demand.arrivals == 1
    demand.hear_readers(CAMERA, 0)
    clock.time += GRACE
    demand.step()
    demand.hear_session(NONE)
    demand.hear_readers(CAMERA, 1)
    assert demand.arrivals == 2


def test_every_change_is_told(clock: FakeClock):
    told: list[DemandState] = []
    demand = Demand(
        enabled=True, grace=0.0, clock=clock, on_change=lambda: told.append(demand.state)
    )
    demand.hear_readers(CAMERA, 1)
    demand.hear_session(UP)
    demand.hear_readers(CAMERA, 0)
    demand.hear_session(NONE)
    assert told == [OPENING, LIVE, KEPT, CLOSING, IDLE]


def test_where_it_is_not_asked_for_readers_are_counted_and_decide_nothing(clock: FakeClock):
    demand = Demand(enabled=False, grace=GRACE, clock=clock)
    demand.hear_readers(CAMERA, 1)
    demand.hear_readers(CAMERA, 0)
    assert demand.state is OFF
    assert demand.asks
    assert demand.readers == {CAMERA: 0}


A_CAMERA, A_STREAM = {"kind": "camera"}, {"kind": "stream", "url": "out.mkv"}


@pytest.mark.parametrize(
    ("mode", "outputs", "expected"),
    [
        ("auto", [A_CAMERA], True),
        ("auto", [A_CAMERA, A_CAMERA], True),
        ("auto", [A_CAMERA, A_STREAM], False),
        ("auto", [A_STREAM], False),
        ("auto", [], False),
        ("always", [A_CAMERA, A_STREAM], True),
        ("always", [A_STREAM], False),
        ("never", [A_CAMERA], False),
    ],
)
def test_auto_is_on_where_every_output_is_a_camera(
    mode: str,
    outputs: list[dict[str, Any]],
    expected: bool,  # noqa: FBT001 - a table
    tmp_path: Path,
):
    settings = load_tree({"on_demand": {"mode": mode}, "output": outputs})
    assert is_on_demand(settings) is expected


def test_who_comes_back_within_the_grace_time_to_no_session_is_a_fresh_arrival(
    demand: Demand, clock: FakeClock
):
    bring_to(demand, clock, OPENING)
    demand.hear_session(NONE)  # it was refused
    demand.hear_readers(CAMERA, 0)
    assert demand.state is KEPT
    demand.hear_readers(CAMERA, 1)
    assert demand.arrivals == 2
