"""The standard streams: replacing missing ones (`run >&-`), and a terminal's encoding."""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

_STANDARD = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def open_missing() -> None:
    """Open /dev/null as each of descriptors 0, 1 and 2 that is closed; call this first.

    Otherwise the next socket or file gets that number, and a child process uses it as its
    standard output.
    """
    for number, name, mode in _STANDARD:
        if not _is_open(number):
            with suppress(OSError):  # without /dev/null nothing changes
                _open_null(number)
        if getattr(sys, name) is None and _is_open(number):
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - stays open


def escape_unprintable() -> None:
    """Write characters that the encoding of stdout or stderr lacks as escapes.

    File names may contain any byte, and a terminal's encoding may be Latin-1 or ASCII: neither
    may make a command fail.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_null(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)  # children get standard streams as well
