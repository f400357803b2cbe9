"""Where control sockets lie: the folders that `run` puts them into and `status` looks in."""

import stat
from collections.abc import Mapping
from pathlib import Path

SYSTEM = Path("/run/relayd")
"""Where the system's services have theirs: NAME/control.sock."""
USERS = Path("/run/user")
"""Where logind makes a runtime directory for each user, by number."""
SHARED = Path("/tmp")  # noqa: S108 - the folder's owner is checked
"""What there is on every machine: relayd-UID in it is the fallback, not $TMPDIR, which may differ
between the shells of `run` and `status`."""


def default_socket(
    name: str, environment: Mapping[str, str], uid: int, users: Path = USERS, shared: Path = SHARED
) -> Path:
    """Return the control socket of the relay `name` where its settings name none.

    It lies in systemd's RuntimeDirectory, else in the user's runtime directory, else in a folder
    of the user's own below /tmp.
    """
    if given := environment.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0]) / "control.sock"
    if own := _own_runtime(environment):
        return own / "relayd" / f"{name}.sock"
    if is_own(users / str(uid), uid):
        return users / str(uid) / "relayd" / f"{name}.sock"
    return fallback(uid, shared) / f"{name}.sock"


def user_folders(
    environment: Mapping[str, str], uid: int, users: Path = USERS, shared: Path = SHARED
) -> list[Path]:
    """Return every folder that `default_socket` may have chosen for this user."""
    own = _own_runtime(environment)
    folders = [own / "relayd"] if own else []
    folders += [users / str(uid) / "relayd", fallback(uid, shared)]
    return list(dict.fromkeys(folders))


def _own_runtime(environment: Mapping[str, str]) -> Path | None:
    """Return $XDG_RUNTIME_DIR; None where it is not set, or relative, which counts as not set."""
    given = Path(environment.get("XDG_RUNTIME_DIR", ""))
    return given if given.is_absolute() else None


def fallback(uid: int, shared: Path = SHARED) -> Path:
    """Return the folder of a user without a runtime directory."""
    return shared / f"relayd-{uid}"


def is_own(folder: Path, uid: int) -> bool:
    """Whether this is a folder, no link to one, that belongs to this user and only he may write.

    Anybody may have made it below /tmp.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022


def make_fallback(uid: int, shared: Path = SHARED) -> str:
    """Make the fallback folder; returns why it cannot be used, empty where it can."""
    folder = fallback(uid, shared)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as fault:
        return f"{folder}: {fault.strerror}"
    if not is_own(folder, uid):
        return f"{folder}: belongs to another user, or others may write to it"
    return ""
