"""Which programs have a file or device open, from /proc."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def programs_with(path: str, *, proc_root: Path = Path("/proc")) -> tuple[str, ...]:
    """Return the other programs that have `path` open, as "cheese (process 1234)".

    Only of processes that this user may inspect; takes about 50 ms. Raises OSError when there is
    no such file.
    """
    wanted = identity(os.stat(path))  # noqa: PTH116 - the same call as for descriptors
    return tuple(
        f"{_name(process)} (process {process.name})"
        for process in entries(proc_root)
        if process.name.isdigit()
        and process.name != str(os.getpid())
        and wanted in descriptors(process)
    )


def descriptors(process: Path) -> Iterator[tuple[int, int]]:
    """Return the identity of each open file of a process, by its folder in /proc."""
    for entry in entries(process / "fd"):
        try:
            yield identity(entry.stat())
        except OSError:  # closed a moment ago
            continue


def identity(found: os.stat_result) -> tuple[int, int]:
    """Return the identity of a file; for a device node that of its device, whatever its path."""
    return (0, found.st_rdev) if stat.S_ISCHR(found.st_mode) else (found.st_dev, found.st_ino)


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:  # missing, or no permission
        return []


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8", "replace").strip()
    except OSError:  # ended a moment ago
        return "a program"
