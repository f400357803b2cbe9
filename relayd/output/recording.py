"""The files of a recording: a name that nothing has, room for a while, one part after another."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from relayd.errors import OutputError
from relayd.urls.safe import MediaUrl

SECONDS_OF_ROOM: Final = 10.0
"""s of recording that must fit on the disk before a part is begun: with less, a disk that is full
would fill up with parts of some pictures each."""
_BITS_PER_BYTE: Final = 8
_BYTES_PER_MEGABYTE: Final = 1_000_000
_HEADER_ONLY: Final = 4096
"""Bytes that a container has at most before its first picture."""
_MOST_NAMES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a recording, made by us; or what is no regular file, taken as it is.

    It is kept open until `close`: no other file can get its inode meanwhile and pass for it.
    """

    path: Path
    _fd: int | None = None
    """None for what is no regular file."""

    @classmethod
    def begin(cls, wanted: str, bitrate_kbit: int) -> Self:
        """Make a file that nothing has yet: `wanted`, else with -1, -2, … before the suffix.

        What is there and no regular file (a FIFO, /dev/null) is taken as it is. Raises OutputError
        when there is no room, or the file cannot be made.
        """
        try:
            path = Path(wanted).expanduser()
            if path.exists() and not path.is_file() and not path.is_dir():
                _require_ours(path, wanted)
                return cls(path)
            _require_room(path.parent, wanted, bitrate_kbit)
            return cls._new(path, _room_for(bitrate_kbit))
        except (OSError, ValueError, RuntimeError) as fault:  # a NUL in it, or ~ of nobody
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
        """Raise OutputError when the file is no longer at its place: removed, or moved away."""
        try:
            is_there = self._fd is None or self._is_ours(self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        except OSError as fault:
            raise OutputError(f"{name}: {fault.strerror}") from fault
        if not is_there:
            raise OutputError(f"{name}: the file was removed or renamed while it was written")

    def close(self, *, is_empty: bool = False) -> None:
        """Let go of the file; one that is said and seen to hold no picture is removed."""
        if self._fd is None:
            return
        try:
            found = self.path.stat()
            if is_empty and self._is_ours(found) and found.st_size <= _HEADER_ONLY:
                self.path.unlink()
        except OSError:  # it is gone, or stays
            return
        finally:
            os.close(self._fd)

    def _is_ours(self, found: os.stat_result) -> bool:
        assert self._fd is not None
        return os.path.samestat(found, os.fstat(self._fd))


def _require_ours(path: Path, wanted: str) -> None:
    """Raise OutputError for a FIFO or link that another user has put where all may write."""
    ours = {os.geteuid(), 0}
    owners = {path.lstat().st_uid, path.stat().st_uid}
    may_be_anybody_s = path.parent.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    if may_be_anybody_s and not owners <= ours:
        raise OutputError(
            f"{MediaUrl(wanted)}: it belongs to another user, who would get the pictures",
            hint="remove it, or choose a folder that this user alone may write to",
        )


def _require_room(folder: Path, wanted: str, bitrate_kbit: int) -> None:
    needed = _room_for(bitrate_kbit)
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < needed:
        least = f"{needed / _BYTES_PER_MEGABYTE:.1f} MB"
        raise OutputError(
            f"{MediaUrl(wanted)}: no space left: less than {least} are free",
            hint="make room there",
        )


def _require_allowed(descriptor: int, size: int) -> None:
    """Raise OSError where a quota or a limit on files leaves no room: statvfs knows neither."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as fault:
        if fault.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:  # it cannot be asked
            raise
    finally:
        os.ftruncate(descriptor, 0)


def _room_for(bitrate_kbit: int) -> int:
    """Return the bytes that must fit."""
    return round(SECONDS_OF_ROOM * bitrate_kbit * 1000 / _BITS_PER_BYTE)


def _hint(fault: Exception) -> str:
    match fault:
        case OSError(errno=errno.EFBIG):
            return "raise ulimit -f, or in a unit LimitFSIZE="
        case OSError(errno=errno.EDQUOT | errno.ENOSPC):
            return "make room there"
        case FileNotFoundError():
            return "make its folder"
        case PermissionError():
            return "let this user write there, or choose another folder"
        case _:
            return ""
