"""The files of a recording: an unused name, enough free space, one part after another."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from relayd.errors import OutputError
from relayd.urls.safe import MediaUrl

SECONDS_OF_ROOM: Final = 10.0
"""s of recording that must fit on the disk before a part is started: otherwise a full disk would
collect parts of a few pictures each."""
_BITS_PER_BYTE: Final = 8
_BYTES_PER_MEGABYTE: Final = 1_000_000
_HEADER_ONLY: Final = 4096
"""Bytes that a container has at most before its first picture."""
_MOST_NAMES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a recording, created by us; or an existing FIFO or device, used as it is.

    It stays open until `close`, so that no other file can get its inode and be taken for it.
    """

    path: Path
    _fd: int | None = None
    """None if it is not a regular file."""

    @classmethod
    def create(cls, wanted: str, bitrate_kbit: int) -> Self:
        """Create a new file: `wanted`, or if that exists with -1, -2, … before the suffix.

        An existing path that is not a regular file (a FIFO, /dev/null) is used as it is. Raises
        OutputError when there is not enough space, or the file cannot be created.
        """
        try:
            path = Path(wanted).expanduser()
            if path.exists() and not path.is_file() and not path.is_dir():
                _require_ours(path, wanted)
                return cls(path)
            _require_room(path.parent, wanted, bitrate_kbit)
            return cls._new(path, _room_for(bitrate_kbit))
        except (OSError, ValueError, RuntimeError) as fault:  # a NUL byte, or ~ of no user
            why = fault.strerror if isinstance(fault, OSError) else str(fault)
            raise OutputError(f"{MediaUrl(wanted)}: {why}", hint=_hint(fault)) from fault

    @classmethod
    def _new(cls, wanted: Path, room: int) -> Self:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        for number in range(_MOST_NAMES):
            path = wanted.with_stem(f"{wanted.stem}-{number}") if number else wanted
            try:
                part = cls(path, descriptor := os.open(path, flags, 0o600))
            except FileExistsError:
                continue
            try:
                _require_allowed(descriptor, room)
            except OSError:
                part.close(is_empty=True)
                raise
            return part
        raise OutputError(
            f"{MediaUrl(str(wanted))}: {_MOST_NAMES} files of that name exist",
            hint="remove some of them",
        )

    def require_there(self, name: str) -> None:
        """Raise OutputError when the file is no longer at its path: removed, or moved away."""
        try:
            is_there = self._fd is None or self._is_ours(self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        except OSError as fault:
            raise OutputError(f"{name}: {fault.strerror}") from fault
        if not is_there:
            raise OutputError(f"{name}: the file was removed or renamed while it was written")

    def close(self, *, is_empty: bool = False) -> None:
        """Close the file; with `is_empty`, remove it if its size confirms that."""
        if self._fd is None:
            return
        try:
            found = self.path.stat()
            if is_empty and self._is_ours(found) and found.st_size <= _HEADER_ONLY:
                self.path.unlink()
        except OSError:  # already gone, or cannot be removed
            return
        finally:
            os.close(self._fd)

    def _is_ours(self, found: os.stat_result) -> bool:
        assert self._fd is not None
        return os.path.samestat(found, os.fstat(self._fd))


def _require_ours(path: Path, wanted: str) -> None:
    """Raise OutputError for a FIFO or link that another user put into a shared folder."""
    ours = {os.geteuid(), 0}
    owners = {path.lstat().st_uid, path.stat().st_uid}
    is_shared = path.parent.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    if is_shared and not owners <= ours:
        raise OutputError(
            f"{MediaUrl(wanted)}: it belongs to another user, who would get the pictures",
            hint="remove it, or choose a folder that only this user may write to",
        )


def _require_room(folder: Path, wanted: str, bitrate_kbit: int) -> None:
    needed = _room_for(bitrate_kbit)
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < needed:
        least = f"{needed / _BYTES_PER_MEGABYTE:.1f} MB"
        raise OutputError(
            f"{MediaUrl(wanted)}: no space left: less than {least} are free",
            hint="free some space there",
        )


def _require_allowed(descriptor: int, size: int) -> None:
    """Raise OSError if a quota or file size limit leaves no room: statvfs shows neither."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as fault:
        if fault.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:  # not supported there
            raise
    finally:
        os.ftruncate(descriptor, 0)


def _room_for(bitrate_kbit: int) -> int:
    """Return the bytes that must be free."""
    return round(SECONDS_OF_ROOM * bitrate_kbit * 1000 / _BITS_PER_BYTE)


def _hint(fault: Exception) -> str:
    match fault:
        case OSError(errno=errno.EFBIG):
            return "raise ulimit -f, or in a unit LimitFSIZE="
        case OSError(errno=errno.EDQUOT | errno.ENOSPC):
            return "free some space there"
        case FileNotFoundError():
            return "create its folder"
        case PermissionError():
            return "let this user write there, or choose another folder"
        case _:
            return ""
