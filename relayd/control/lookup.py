"""Finds the running relays of this computer, and the places that may not be searched."""

import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pwd import getpwuid

from relayd.config import socket_folders
from relayd.errors import NotRunning, RelayHidden, UsageError
from relayd.urls.quoting import plain_name

_CREDENTIALS = struct.Struct("iII")
"""Result of SO_PEERCRED: process, user and group of the listener."""
_CONNECT_TIMEOUT = 1.0
"""s: a relay that no longer accepts connections blocks new ones once its queue is full."""


@dataclass(frozen=True, slots=True)
class FoundRelay:
    """A relay that listens on a control socket."""

    name: str
    socket: Path
    pid: int | None
    """None if it is unknown: its queue is full, or it is in another container."""

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped its process, so that it cannot answer."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text("ascii", "replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[:1] in (["T"], ["t"])


@dataclass(frozen=True, slots=True)
class HiddenPlace:
    """A place of control sockets that this user may not access."""

    path: Path
    name: str
    """The relay's name; empty if it is unknown."""
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} ({self.hint})"


@dataclass(slots=True)
class FoundRelays:
    """The result of a search."""

    relays: list[FoundRelay] = field(default_factory=list)
    hidden: list[HiddenPlace] = field(default_factory=list)


def find_relays(
    environment: Mapping[str, str] | None = None,
    *,
    uid: int | None = None,
    system: Path = socket_folders.SYSTEM,
    users: Path = socket_folders.USERS,
    shared: Path = socket_folders.SHARED,
) -> FoundRelays:
    """Find relays of the system and of this user."""
    environment = os.environ if environment is None else environment
    uid = os.geteuid() if uid is None else uid
    found = FoundRelays()
    for folder in _entries(system, found):
        _probe_into(folder / "control.sock", folder.name, found)
    for folder in socket_folders.user_folders(environment, uid, users, shared):
        if folder == socket_folders.fallback(uid, shared) and not _may_trust(folder, uid, found):
            continue
        for path in _entries(folder, found):
            if path.suffix == ".sock":
                _probe_into(path, path.stem, found)
    return found


def choose(found: FoundRelays, name: str | None = None) -> FoundRelay:
    """Return the relay `name`, or the only one.

    Raises NotRunning, UsageError if several run and none is named, and RelayHidden if it may be
    running in a place without permission.
    """
    named = [relay for relay in found.relays if name in {None, relay.name}]
    if len(named) == 1:
        return named[0]
    if named:
        raise UsageError(
            f"several relays run{_listed(named)}", hint="give a name, or --socket with its path"
        )
    if hidden := [place for place in found.hidden if name is None or place.name in {"", name}]:
        raise RelayHidden("; ".join(map(str, hidden)))
    if name is not None:
        raise NotRunning(f"no relay named {plain_name(name)} runs{_listed(found.relays)}")
    raise NotRunning("no relay runs", hint="-c FILE or --socket PATH for one that has its own")


def relay_at(path: Path, name: str = "") -> FoundRelay:
    """Return the relay that listens on this socket.

    Raises NotRunning if none does, RelayHidden if this user may not connect.
    """
    found = FoundRelays()
    _probe_into(path, name or path.stem, found)
    if found.hidden:
        raise RelayHidden(str(found.hidden[0]))
    if not found.relays:
        raise NotRunning(f"no relay runs on {path}")
    return found.relays[0]


def _entries(folder: Path, found: FoundRelays) -> list[Path]:
    """List a folder; a missing one is empty, one without permission is recorded as hidden."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        found.hidden.append(_hidden(folder, "", fault))
        return []


def _may_trust(folder: Path, uid: int, found: FoundRelays) -> bool:
    """Whether the fallback folder exists and is ours, as any user could have created it."""
    if socket_folders.is_own(folder, uid):
        return True
    if os.path.lexists(folder):
        reason = "belongs to another user, or others may write to it, so it is not trusted"
        found.hidden.append(HiddenPlace(folder, "", reason, "have it removed"))
    return False


def _probe_into(path: Path, name: str, found: FoundRelays) -> None:
    """Record the listener on a socket; a file that a killed relay left has none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_TIMEOUT)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return
        except (TimeoutError, BlockingIOError):  # it listens, with a full queue
            found.relays.append(FoundRelay(name, path, None))
        except PermissionError as fault:
            found.hidden.append(_hidden(path, name, fault))
        except OSError:  # a path that no socket can have, or a socket of another kind
            return
        else:
            found.relays.append(FoundRelay(name, path, _peer(probe)))


def _peer(connected: socket.socket) -> int | None:
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(credentials)[0] or None


def _hidden(path: Path, name: str, fault: OSError) -> HiddenPlace:
    owner = _owner_of((path, *path.parents))
    who = "root" if owner in {"", "root"} else f"root or user {owner}"
    reason = (fault.strerror or str(fault)).lower()
    return HiddenPlace(path, name, reason, f"run it as {who}")


def _owner_of(paths: Iterable[Path]) -> str:
    """Return the owner of the first path that can be read, or an empty text."""
    for path in paths:
        try:
            return getpwuid(path.stat().st_uid).pw_name
        except (OSError, KeyError):
            continue
    return ""


def _listed(relays: Sequence[FoundRelay]) -> str:
    """List relays by name, or by socket if two have the same name."""
    names = [relay.name for relay in relays]
    shown = names if len(set(names)) == len(names) else [str(relay.socket) for relay in relays]
    return f" (running: {', '.join(shown)})" if shown else ""
