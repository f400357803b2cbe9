"""`relayd agora-install`: Agora's wrapper from PyPI, its native library over verified TLS."""

import hashlib
import http.client
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from relayd.errors import LibraryUnavailable
from relayd.rtc.agora.installation import (
    LIBRARIES,
    MEND,
    PACKAGE,
    Installation,
    native_sdk_url,
    require,
    require_wrapper,
)
from relayd.rtc.agora.wheel import install_wrapper

FETCH_TIMEOUT = 30.0
"""s without a byte from the vendor's host."""
_UNSOUND = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What zipfile raises for what is no zip, or damaged, encrypted, packed in an unknown way."""
_BY_HAND = "fetch that file elsewhere, then: relayd agora-install --from FILE"


def install(say: Callable[[str], None], archive: Path | None = None) -> Installation:
    """Install what is missing, `archive` being the native SDK's zip if it is at hand.

    `say` gets a line for each step. Raises LibraryUnavailable.
    """
    if archive is None:
        with suppress(LibraryUnavailable):
            found = require()
            say(f"{found} is installed")
            return found
    try:
        folder, _ = require_wrapper()
    except LibraryUnavailable:
        install_wrapper(say)
        folder = _where_pip_put_it()
    _install_native(folder, say, archive)
    return require()


def _where_pip_put_it() -> Path:
    try:
        return require_wrapper()[0]
    except LibraryUnavailable as fault:  # a new folder of the user's is seen from the next start on
        raise LibraryUnavailable(
            f"pip installed {PACKAGE}, but this process does not see it yet", mend=f"again: {MEND}"
        ) from fault


def _install_native(folder: Path, say: Callable[[str], None], archive: Path | None) -> None:
    """Put the native SDK into the wrapper's folder, all of it or nothing."""
    url = native_sdk_url(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".relayd-", dir=folder) as scratch:
            if archive is None:
                archive = Path(scratch) / "sdk.zip"
                say(f"fetching {url}")
                _fetch(url, archive)
            say(f"SHA-256 {_digest(archive)}")
            unpacked = _unpack(archive, Path(scratch))
            _swap_in(unpacked, folder / "agora_sdk", Path(scratch) / "old")
        told = folder / "version.txt"
        told.write_text(url, "utf-8")  # the wrapper compares: no line feed
        told.chmod(0o644)
    except PermissionError as fault:
        raise LibraryUnavailable(
            f"{fault.filename or folder} cannot be written",
            mend="run it as the owner of this Python's packages",
        ) from fault
    except OSError as fault:
        raise LibraryUnavailable(f"the native library cannot be put in place: {fault}") from fault


def _fetch(url: str, into: Path) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=FETCH_TIMEOUT) as answer,  # noqa: S310 - https, see native_sdk_url
            into.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    except (OSError, http.client.HTTPException) as fault:  # URLError is an OSError
        why = getattr(fault, "reason", "") or fault
        raise LibraryUnavailable(f"{url} cannot be fetched: {why}", mend=_BY_HAND) from fault


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise LibraryUnavailable(f"{file} cannot be read: {fault.strerror}") from fault


def _unpack(archive: Path, into: Path) -> Path:
    """Give the folder of libraries that was in the archive, readable for every user."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(into)
    except _UNSOUND as fault:
        raise LibraryUnavailable(
            f"{archive.name} is no sound zip file: {fault}", mend=_BY_HAND
        ) from fault
    unpacked = into / "agora_sdk"
    for name in LIBRARIES:
        if not (unpacked / name).is_file():
            raise LibraryUnavailable(f"{archive.name} has no agora_sdk/{name}", mend=_BY_HAND)
    for path in (unpacked, *unpacked.rglob("*")):
        path.chmod(0o755)
    return unpacked


def _swap_in(new: Path, place: Path, old: Path) -> None:
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
