"""Small files that must survive a crash: synced to the disk, and locked by their owner.

A lock (flock) is released when the process ends, however it ends; spawned processes do not
inherit it, since Python's descriptors close on exec. So a file whose lock is free has no owner.
"""

import fcntl
import json
import math
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from relayd.errors import Unavailable
from relayd.process.folders import make_private

VERSION = 1
"""Of the file format; new fields keep it, a change of meaning raises it."""
LARGEST_FILE = 64 * 1024
"""Bytes; a normal one has about 200."""


class Unreadable(ValueError):
    """A file cannot be read as an entry; the message says why."""


@contextmanager
def disk_access(directory: Path) -> Iterator[None]:
    """Turn disk errors below `[state] directory` into Unavailable."""
    try:
        yield
    except PermissionError as fault:
        raise Unavailable(
            f"[state] directory {str(directory)!r} cannot be used: {fault.strerror}",
            hint=f"run this as {_owner(directory)}, or set [state] directory to a folder of yours",
        ) from fault
    except OSError as fault:
        raise Unavailable(
            f"[state] directory {str(directory)!r} cannot be used: {fault.strerror or fault}",
            hint="set [state] directory to a folder that relayd may write, with space left",
        ) from fault


def make_folder(path: Path) -> None:
    """Make a folder for its owner only, with missing parents; durably on disk."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    make_private(path)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(path: Path) -> None:
    """Sync a folder's changes to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: Mapping[str, Any]) -> int:
    """Put a new JSON file in place atomically, durably on disk when this returns.

    Returns its descriptor, with the lock; the caller closes it.
    """
    draft = path.with_suffix(".part")
    draft.unlink(missing_ok=True)
    lock = write_through(draft, json.dumps(content).encode() + b"\n", os.O_EXCL)
    try:
        draft.rename(path)
        sync_folder(path.parent)
    except OSError:
        os.close(lock)
        raise
    return lock


def write_through(path: Path, content: bytes, how: int) -> int:
    """Write a file and sync it to the disk; returns its descriptor, with the lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    return descriptor


def open_file(path: Path) -> int:
    """Open a regular file, to read and lock it; raises OSError, or Unreadable for other kinds."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may have side effects
        raise Unreadable("not a regular file")
    try:
        descriptor = os.open(path, os.O_RDWR | flags)
    except OSError:  # a disk that is read-only now, a file that is immutable
        descriptor = os.open(path, os.O_RDONLY | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable("not a regular file")
    return descriptor


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock if it is free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks: not ours either way
        return False
    return True


def is_held(descriptor: int) -> bool:
    """Whether a live process has the file locked."""
    return not try_lock(descriptor, fcntl.LOCK_SH)


def read_fields(descriptor: int) -> Mapping[str, Any]:
    """Read a JSON object of a known version.

    The caller ignores unknown fields; files without a version are of the first one.
    Raises Unreadable, OSError.
    """
    content = os.pread(descriptor, LARGEST_FILE, 0)
    if not content.strip(b"\0 \r\n\t"):
        raise Unreadable("it is empty: the disk was full, or the machine lost power")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise Unreadable("it is broken: no whole JSON") from fault
    if not isinstance(fields, Mapping):
        raise Unreadable("it is broken: no JSON object")
    version = fields.get("version", VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise Unreadable("it is broken: its version is no number")
    if version > VERSION:
        raise Unreadable(f"it was written by a newer relayd (version {version})")
    return fields


def text(fields: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return a field that is text; raises Unreadable."""
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise Unreadable(f"it is broken: {key} is missing or no text")
    return value


def seconds(fields: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """Return a field that is a finite number; raises Unreadable."""
    value = fields.get(key, default)
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise Unreadable(f"it is broken: {key} is missing or no number")


def why(fault: Unreadable | OSError) -> str:
    """Return why a file cannot be read, as text."""
    return (fault.strerror or str(fault)) if isinstance(fault, OSError) else str(fault)


def _owner(path: Path) -> str:
    """Return the owner of the folder, or of the nearest parent that can be read."""
    for one in (path, *path.parents):
        with suppress(OSError, KeyError):
            return pwd.getpwuid(one.stat().st_uid).pw_name
    return "its owner"
