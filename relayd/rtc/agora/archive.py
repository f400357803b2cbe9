"""The native SDK's zip: looked at as a whole before anything is done with it."""

import hashlib
import platform
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from relayd.errors import LibraryUnavailable, UsageError
from relayd.rtc.agora.installation import LIBRARIES

LARGEST: Final = 512 * 1024 * 1024
"""Bytes of the zip; Agora's have about 100 MB."""
LARGEST_UNPACKED: Final = 2 * 1024 * 1024 * 1024
"""Bytes of what is in it."""
MOST_FILES: Final = 10_000
"""Files in it; Agora's have fewer than a hundred."""
KNOWN: Final[Mapping[str, frozenset[str]]] = {"x86_64": frozenset(), "aarch64": frozenset()}
"""SHA-256 of the zips that are known to be right, by machine. Agora publishes none; where some
are listed here, no other is taken."""
BY_HAND: Final = "fetch that file elsewhere, then: relayd agora-install --from FILE"
_UNSOUND: Final = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What zipfile raises for what is no zip, or damaged, encrypted, packed in an unknown way."""
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def require_hash_form(wanted: str) -> str:
    """Return a SHA-256 in lower case; raises UsageError where it is none."""
    if not _HASH.fullmatch(wanted):
        raise UsageError(f"--require-hash {wanted}: give a SHA-256, 64 hexadecimal digits")
    return wanted.lower()


def inspect(archive: Path, wanted: str = "", known: Mapping[str, frozenset[str]] = KNOWN) -> str:
    """Look whether this is the SDK, whole and with the right hash; returns a line about its hash.

    `wanted` is the SHA-256 that it must have; without, one of those that are `known` for this
    machine. Raises LibraryUnavailable.
    """
    digest = _digest(archive)
    right = {wanted} if wanted else known.get(platform.machine(), frozenset())
    if right and digest not in right:
        raise LibraryUnavailable(
            f"{archive.name} is refused: its SHA-256 is {digest}, not {' or '.join(sorted(right))}",
            hint=BY_HAND,
        )
    try:
        with zipfile.ZipFile(archive) as zipped:
            _require_contents(archive, zipped)
            damaged = zipped.testzip()
    except _UNSOUND as fault:
        raise LibraryUnavailable(
            f"{archive.name} is no sound zip file: {fault}", hint=BY_HAND
        ) from fault
    if damaged is not None:
        raise LibraryUnavailable(f"{archive.name} is damaged at {damaged}", hint=BY_HAND)
    note = "as it must be" if right else "relayd knows none to compare it with"
    return f"SHA-256 {digest} ({note})"


def unpack(archive: Path, into: Path) -> Path:
    """Return the folder of libraries that was in the archive, readable for every user.

    The archive was inspected before. zipfile keeps what it extracts below `into`, and makes no
    links. Raises OSError.
    """
    with zipfile.ZipFile(archive) as zipped:
        ours = [name for name in zipped.namelist() if name.startswith("agora_sdk/")]
        zipped.extractall(into, ours)
    unpacked = into / "agora_sdk"
    for path in (unpacked, *unpacked.rglob("*")):
        path.chmod(0o755)
    return unpacked


def _require_contents(archive: Path, zipped: zipfile.ZipFile) -> None:
    files = zipped.infolist()
    if len(files) > MOST_FILES or sum(file.file_size for file in files) > LARGEST_UNPACKED:
        raise LibraryUnavailable(
            f"{archive.name} has more than {MOST_FILES} files or {LARGEST_UNPACKED} bytes in it",
            hint=BY_HAND,
        )
    names = {file.filename for file in files}
    for name in LIBRARIES:
        if f"agora_sdk/{name}" not in names:
            raise LibraryUnavailable(f"{archive.name} has no agora_sdk/{name}", hint=BY_HAND)


def _digest(file: Path) -> str:
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise LibraryUnavailable(f"{file} is no file")
        if found.st_size > LARGEST:
            raise LibraryUnavailable(f"{file} has more than {LARGEST} bytes")
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise LibraryUnavailable(f"{file} cannot be read: {fault.strerror}") from fault
