"""Requests to a running relay over its control socket."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from relayd.control.lookup import FoundRelay
from relayd.errors import (
    NotRunning,
    RelaydError,
    RelayStuck,
    ServerFault,
    ServiceUnreachable,
    Unavailable,
)
from relayd.http.client import Answer, HttpClient

COMMAND_TIMEOUT = 30.0
"""s that a command may take: the service checks a new face first."""
STUCK_AFTER = 2.0
"""s without a status after which a relay counts as stuck: it answers at once otherwise."""

Status = Mapping[str, Any]

_NEEDED: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "state_words", "reason", "source", "on_demand"), str),
    **dict.fromkeys(("since", "uptime", "fps", "longest_gap"), (int, float)),
    **dict.fromkeys(("delay", "outputs", "readers"), dict),
    **dict.fromkeys(("healthy", "source_alive"), bool),
    "session_id": (str, type(None)),
}
"""Fields of every relay's status, and their types."""


async def fetch_status(relay: FoundRelay) -> Status:
    """Return a relay's status. Raises RelayStuck, and NotRunning if it has ended meanwhile."""
    async with HttpClient(unix_socket=relay.socket, read_timeout=COMMAND_TIMEOUT) as http:
        return _status(await _get_promptly(http, relay, "/api/status"), relay)


async def fetch_status_and_page(relay: FoundRelay) -> tuple[Status, str]:
    """Return a relay's status and its page's URL with the token; empty if it serves no page."""
    async with HttpClient(unix_socket=relay.socket, read_timeout=COMMAND_TIMEOUT) as http:
        status = _status(await _get_promptly(http, relay, "/api/status"), relay)
        page = await _get_promptly(http, relay, "/api/page")
    if page.status != HTTPStatus.OK:  # a relay of an older version
        return status, ""
    return status, str(_object(page, relay).get("url") or "")


async def send_command(
    relay: FoundRelay, path: str, body: Mapping[str, str] | None = None
) -> Status:
    """Send a command to a relay; returns its status after it.

    Raises RelaydError with its refusal, and as `fetch_status`, which is called first to detect a
    stuck relay, since the command itself may take long.
    """
    await fetch_status(relay)
    async with HttpClient(unix_socket=relay.socket, read_timeout=COMMAND_TIMEOUT) as http:
        answer = await http.request("POST", f"http://relay{path}", json_body=body or {})
    return _status(answer, relay)


async def _get_promptly(http: HttpClient, relay: FoundRelay, path: str) -> Answer:
    stuck = RelayStuck(
        f"relay {relay.name} does not answer (stopped or frozen), pid {relay.pid or 'unknown'}",
        hint="see its log; continue it with SIGCONT, or restart it",
    )
    if relay.is_stopped:
        raise stuck
    try:
        async with asyncio.timeout(STUCK_AFTER):
            return await http.request("GET", f"http://relay{path}")
    except TimeoutError as fault:
        raise stuck from fault
    except ServiceUnreachable as fault:
        if relay.pid is None:  # its connection queue was full
            raise stuck from fault
        raise NotRunning(f"relay {relay.name} has ended: {fault.message}") from fault


def _status(answer: Answer, relay: FoundRelay) -> Status:
    """Parse a status; raises RelaydError with a refusal, Unavailable for anything else."""
    status = _object(answer, relay)
    if answer.status != HTTPStatus.OK and isinstance(error := status.get("error"), str):
        raise RelaydError(error, hint=str(status.get("hint") or status.get("mend") or ""))
    if not all(isinstance(status.get(name), kind) for name, kind in _NEEDED.items()):
        raise _not_a_relay(relay)
    return status


def _object(answer: Answer, relay: FoundRelay) -> Status:
    try:
        status = answer.json()
    except ServerFault as fault:
        raise _not_a_relay(relay) from fault
    if not isinstance(status, dict):
        raise _not_a_relay(relay)
    return status


def _not_a_relay(relay: FoundRelay) -> Unavailable:
    return Unavailable(
        f"the server on {relay.socket} is not a relay of this version",
        hint="check what listens there; after an update, restart the relay",
    )


def describe_status(status: Status) -> list[tuple[str, str]]:
    """Return the important parts of a status as pairs of name and text."""
    reason = f": {status['reason']}" if status["reason"] else ""
    delay = status["delay"].get("p50")
    return [
        ("relay", str(status["name"])),
        ("state", f"{status['state_words']}{reason}"),
        ("since", f"{status['since']:.0f} s, up for {status['uptime']:.0f} s"),
        ("source", f"{status['source']} ({_how_source_is(status)})"),
        ("session", str(status["session_id"] or "none")),
        *_money(status),
        ("on demand", str(status["on_demand"])),
        ("shown", f"{status['fps']:.1f} fps, longest gap {status['longest_gap'] * 1000:.0f} ms"),
        ("delay", "unknown" if delay is None else f"{delay * 1000:.0f} ms"),
        *_sound(status),
        *((f"output {name}", _how_output_is(status, name)) for name in status["outputs"]),
        *((f"readers {name}", _count(readers)) for name, readers in status["readers"].items()),
    ]


def outcome(what: str, status: Status) -> str:
    """Describe in one line what a command did, and the relay's state after it."""
    reason = f": {status['reason']}" if status["reason"] else ""
    return f"{status['name']}: {what}; now {status['state_words']}{reason}"


def _money(status: Status) -> Iterator[tuple[str, str]]:
    """Describe what may cost money; a relay of an older version reports none of it."""
    if doubtful := status.get("sessions_doubtful", 0):
        yield "doubtful", f"{doubtful} session(s) may be open at the service: look at your account"
    if limit := status.get("daily_limit", 0.0):
        spent, most = (timedelta(seconds=round(one)) for one in (status["spent_today"], limit))
        yield "today", status["budget"] or f"{spent} of {most}"


_WHY_SILENT: Mapping[str, str] = {
    "muted": "muted",
    "paused": "silent while paused",
    "not_live": "silent until the first swapped picture",
    "standby": "silent while the swap is away",
}
"""`SoundStatus.silent_for` as text."""


def _sound(status: Status) -> Iterator[tuple[str, str]]:
    """Describe the sound, if the relay has any."""
    if not (sound := status.get("sound")):
        return
    if silent_for := sound["silent_for"]:
        yield "sound", ", ".join(_WHY_SILENT.get(why, why) for why in silent_for)
    else:
        yield "sound", f"{sound['delay'] * 1000:.0f} ms after capture, {sound['level']:.0f} dBFS"
    if trouble := sound.get("trouble"):
        yield "voice", str(trouble)
    for name, listeners in sound["listeners"].items():
        yield f"listeners {name}", _count(listeners)


def _how_source_is(status: Status) -> str:
    if status["source_alive"]:
        return str(status.get("source_slow") or "ok")
    return "released" if status["on_demand"] in {"idle", "closing"} else "away"


def _how_output_is(status: Status, name: str) -> str:
    how, files = str(status["outputs"][name]), status.get("files", {}).get(name, ())
    return f"{how}, in {files[-1]}" if files and files[-1] != name else how


def _count(readers: int | None) -> str:
    return "unknown" if readers is None else str(readers)
