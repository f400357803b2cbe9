"""The folders of control sockets, in which `run` creates them and `status` finds them."""

import stat
from collections.abc import Mapping
from pathlib import Path

SYSTEM = Path("/run/relayd")
"""For system services: NAME/control.sock."""
USERS = Path("/run/user")
"""logind's runtime directories of all users, by user id."""
SHARED = Path("/tmp")  # noqa: S108 - the folder's owner is checked
"""Exists everywhere: relayd-UID in it is the fallback. Not $TMPDIR, which may differ between the
shells of `run` and `status`."""


def default_socket(
    name: str, environment: Mapping[str, str], uid: int, users: Path = USERS, shared: Path = SHARED
) -> Path:
    """Return the default control socket of the relay `name`.

    It is in systemd's RuntimeDirectory, else in the user's runtime directory, else in a folder of
    the user below /tmp.
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
    """Return all folders that `default_socket` may have chosen for this user."""
    own = _own_runtime(environment)
    folders = [own / "relayd"] if own else []
    folders += [users / str(uid) / "relayd", fallback(uid, shared)]
    return list(dict.fromkeys(folders))


def _own_runtime(environment: Mapping[str, str]) -> Path | None:
    """Return $XDG_RUNTIME_DIR; None if it is unset, or relative, which counts as unset."""
    given = Path(environment.get("XDG_RUNTIME_DIR", ""))
    return given if given.is_absolute() else None


def fallback(uid: int, shared: Path = SHARED) -> Path:
    """Return the folder of a user without a runtime directory."""
    return shared / f"relayd-{uid}"


def is_own(folder: Path, uid: int) -> bool:
    """Whether this is a folder, not a link, that belongs to this user and only they may write.

    Below /tmp any user may have created it.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022


def make_fallback(uid: int, shared: Path = SHARED) -> str:
    """Create the fallback folder; returns why it cannot be used, or an empty text."""
    folder = fallback(uid, shared)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as fault:
        return f"{folder}: {fault.strerror}"
    if not is_own(folder, uid):
        return f"{folder}: belongs to another user, or others may write to it"
    return ""
