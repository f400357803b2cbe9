"""The commands that talk to a running relay, over its control socket."""

import os
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from relayd.errors import RelaydError, Unavailable, UsageError
from relayd.http import HttpClient

SYSTEM_SOCKETS = Path("/run/relayd")
"""Where systemd's relays have theirs: NAME/control.sock."""
PATIENCE = 30.0
"""s that an answer may take: a new face is looked at by the service first."""

Status = Mapping[str, Any]


def find_socket(name: str | None, environment: Mapping[str, str] | None = None) -> Path:
    """Give the control socket of the relay `name`, or of the only one that runs.

    Raises UsageError when there is none, or when several run and none is named.
    """
    found = {_name_of(path): path for path in _sockets(environment or os.environ)}
    if name is not None:
        if name not in found:
            raise UsageError(f"no relay named {name} runs{_listed(found)}")
        return found[name]
    if len(found) != 1:
        problem = "no relay runs" if not found else "several relays run: name one"
        raise UsageError(f"{problem}{_listed(found)}")
    return next(iter(found.values()))


async def ask(control: Path, path: str, body: Mapping[str, str] | None = None) -> Status:
    """Send a request to a relay (a POST where there is a body) and give its status after it."""
    async with HttpClient(unix_socket=control, read_timeout=PATIENCE) as http:
        method = "GET" if body is None else "POST"
        answer = await http.request(method, f"http://relay{path}", json_body=body)
    told: Status = answer.json()
    if answer.status != HTTPStatus.OK:
        raise RelaydError(str(told.get("error")), mend=str(told.get("mend") or ""))
    return told


def in_words(status: Status) -> list[tuple[str, str]]:
    """Give what a person wants to know of a status, as pairs of name and text."""
    reason = f": {status['reason']}" if status["reason"] else ""
    delay = status["delay"]["p50"]
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
        *((f"output {name}", _how_output_is(status, name)) for name in status["outputs"]),
        *((f"readers {name}", _count(readers)) for name, readers in status["readers"].items()),
    ]


def _money(status: Status) -> Iterator[tuple[str, str]]:
    """Tell what a person should know of the bill; a relay of an older version tells none of it."""
    if doubtful := status.get("sessions_doubtful", 0):
        yield "doubtful", f"{doubtful} session(s) may be open at the service: look at your account"
    if limit := status.get("daily_limit", 0.0):
        spent, most = (timedelta(seconds=round(one)) for one in (status["spent_today"], limit))
        yield "today", status["budget"] or f"{spent} of {most}"


def _how_source_is(status: Status) -> str:
    if status["source_alive"]:
        return "ok"
    return "let go of" if status["on_demand"] in {"idle", "closing"} else "away"


def _how_output_is(status: Status, name: str) -> str:
    how, files = str(status["outputs"][name]), status.get("files", {}).get(name, ())
    return f"{how}, in {files[-1]}" if files and files[-1] != name else how


def _count(readers: int | None) -> str:
    return "unknown" if readers is None else str(readers)


def _sockets(environment: Mapping[str, str]) -> list[Path]:
    own = environment.get("XDG_RUNTIME_DIR")
    users = sorted((Path(own) / "relayd").glob("*.sock")) if own else []
    try:
        return [
            path
            for path in (*sorted(SYSTEM_SOCKETS.glob("*/control.sock")), *users)
            if not _is_stale(path)
        ]
    except OSError as fault:
        raise Unavailable(f"{SYSTEM_SOCKETS}: {fault.strerror}") from fault


def _is_stale(path: Path) -> bool:
    """Whether nobody listens there: a relay that was killed left it."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # ours to try, but not to judge: asking tells why
            return False
    return False


def _name_of(path: Path) -> str:
    return path.parent.name if path.name == "control.sock" else path.stem


def _listed(found: Mapping[str, Path]) -> str:
    return f" (running: {', '.join(found)})" if found else ""
