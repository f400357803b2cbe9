"""Derives the state of a relay from its sessions and conditions."""

from collections.abc import Sequence
from dataclasses import dataclass

from relayd.relay.conditions import STILL_CLOSING, Conditions
from relayd.relay.holdoff import Hold, Holdoff
from relayd.relay.session_set import SessionSet
from relayd.relay.sessions import Session, Stage
from relayd.relay.status import DemandState, RelayState

SOON = "the next try is in a moment"

_STAGES = {
    Stage.LOADING: RelayState.OPENING,
    Stage.CREATING: RelayState.OPENING,
    Stage.QUEUED: RelayState.QUEUED,
    Stage.JOINING: RelayState.JOINING,
    Stage.WAITING: RelayState.WAITING,
}


@dataclass(frozen=True, slots=True)
class View:
    """State, reason and demand of a relay."""

    state: RelayState
    reason: str
    """Why, as text; empty if the state says enough."""
    demand: DemandState
    """The state of sessions on demand."""


def describe(
    sessions: SessionSet,
    conditions: Conditions,
    holdoff: Holdoff,
    now: float,
) -> View:
    """Return the state of a relay with these sessions."""
    working, closing = sessions.working, len(sessions.by_number) > len(sessions.working)
    demand = conditions.readers.state(
        now,
        live=any(session.live_since is not None for session in working),
        closing=closing and not working,
    )
    if conditions.stopping:
        state, reason = RelayState.CLOSING, ""
    elif not working:
        state, reason = _without_session(conditions, holdoff, now, closing=closing)
    elif (shown := sessions.shown_session) is not None:
        state, reason = _while_shown(shown, working, conditions)
    else:
        state, reason = _STAGES[working[-1].stage], ""
    return View(state, reason, demand)


def _while_shown(
    session: Session, working: Sequence[Session], conditions: Conditions
) -> tuple[RelayState, str]:
    if not conditions.source.alive:
        return RelayState.DEGRADED, conditions.source.reason
    if session.fault or not session.shows_pictures:
        return RelayState.DEGRADED, session.fault or "no swapped picture arrives"
    return (RelayState.ROTATING if len(working) > 1 else RelayState.LIVE), ""


def _without_session(
    conditions: Conditions, holdoff: Holdoff, now: float, *, closing: bool
) -> tuple[RelayState, str]:
    obstacle, hold = conditions.obstacle(), holdoff.hold(now)
    if conditions.paused or conditions.asleep:
        return RelayState.STANDBY, obstacle or ""
    if conditions.budget_spent:
        return RelayState.BLOCKED, conditions.budget_reason
    if hold is not Hold.NONE:
        waits = hold is Hold.FAILED
        return (RelayState.BACKOFF if waits else RelayState.BLOCKED), holdoff.reason(now)
    if obstacle is None and closing:
        obstacle = STILL_CLOSING
    if obstacle is None and holdoff.comes_soon(now):
        obstacle = SOON
    return RelayState.STANDBY, obstacle or ""
