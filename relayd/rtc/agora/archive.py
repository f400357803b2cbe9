"""The native SDK's zip: checked completely before it is used."""

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
"""SHA-256 of zips known to be right, by machine. Agora publishes none; if some are listed here, no
other is accepted."""
MANUAL_HINT: Final = "fetch that file elsewhere, then: relayd agora-install --from FILE"
_UNSOUND: Final = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What zipfile raises for a file that is no zip, or is damaged, encrypted or unsupported."""
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def require_hash_form(wanted: str) -> str:
    """Return a SHA-256 in lower case; raises UsageError if it is none."""
    if not _HASH.fullmatch(wanted):
        raise UsageError(f"--require-hash {wanted}: give a SHA-256, 64 hexadecimal digits")
    return wanted.lower()


def inspect(archive: Path, wanted: str = "", known: Mapping[str, frozenset[str]] = KNOWN) -> str:
    """Check that this is the whole SDK with the right hash; returns a line about its hash.

    `wanted` is the SHA-256 that it must have; without it, one of those `known` for this machine.
    Raises LibraryUnavailable.
    """
    digest = _digest(archive)
    right = {wanted} if wanted else known.get(platform.machine(), frozenset())
    if right and digest not in right:
        raise LibraryUnavailable(
            f"{archive.name} is refused: its SHA-256 is {digest}, not {' or '.join(sorted(right))}",
            hint=MANUAL_HINT,
        )
    try:
        with zipfile.ZipFile(archive) as zipped:
            _require_contents(archive, zipped)
            damaged = zipped.testzip()
    except _UNSOUND as fault:
        raise LibraryUnavailable(
            f"{archive.name} is no sound zip file: {fault}", hint=MANUAL_HINT
        ) from fault
    if damaged is not None:
        raise LibraryUnavailable(f"{archive.name} is damaged at {damaged}", hint=MANUAL_HINT)
    note = "as it must be" if right else "relayd knows none to compare it with"
    return f"SHA-256 {digest} ({note})"


def unpack(archive: Path, into: Path) -> Path:
    """Extract the folder of libraries, readable for every user; returns its path.

    The archive must have been inspected. zipfile extracts only below `into`, and makes no links.
    Raises OSError.
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
            hint=MANUAL_HINT,
        )
    names = {file.filename for file in files}
    for name in LIBRARIES:
        if f"agora_sdk/{name}" not in names:
            raise LibraryUnavailable(f"{archive.name} has no agora_sdk/{name}", hint=MANUAL_HINT)


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
