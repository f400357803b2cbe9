"""Small files that must outlast a crash: written through to the disk, and locked by their owner.

A lock (flock) goes with the process, however it ends; it is not inherited by spawned processes,
since Python's descriptors close on exec. So a file whose lock can be taken has no owner any more.
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
"""Of what is written; fields may be added to it, a change of their meaning raises it."""
LARGEST_FILE = 64 * 1024
"""Bytes; an honest one has some 200."""


class Unreadable(ValueError):
    """A file holds nothing that can be understood; the message says why."""


@contextmanager
def disk_access(directory: Path) -> Iterator[None]:
    """Turn the disk's failures below `[state] directory` into Unavailable."""
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
    """Make a folder for the owner alone, and what is missing above it; on disk for good."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    make_private(path)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(path: Path) -> None:
    """Put a folder's changes on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: Mapping[str, Any]) -> int:
    """Put a new JSON file in place, whole or not at all, on disk for good when this returns.

    Gives its descriptor, with the lock: the caller's to close.
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
    """Write a file through to the disk; returns its descriptor, with the lock."""
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
    """Open a regular file, to be read and locked; raises OSError, or Unreadable for others."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may do something
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
    """Take a lock if nobody has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks: not ours either way
        return False
    return True


def is_held(descriptor: int) -> bool:
    """Whether a living process has the file in its care."""
    return not try_lock(descriptor, fcntl.LOCK_SH)


def read_fields(descriptor: int) -> Mapping[str, Any]:
    """Read a JSON object of a version that is known here.

    Fields that are not known are the caller's to ignore; files without a version are of the
    first one. Raises Unreadable, OSError.
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
    """Return why a file cannot be read, in words."""
    return (fault.strerror or str(fault)) if isinstance(fault, OSError) else str(fault)


def _owner(path: Path) -> str:
    """Name whose folder it is, or the nearest one above that can be seen."""
    for one in (path, *path.parents):
        with suppress(OSError, KeyError):
            return pwd.getpwuid(one.stat().st_uid).pw_name
    return "its owner"
