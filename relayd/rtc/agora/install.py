"""`relayd agora-install`: installs Agora's wrapper, checked by hash, and its native library."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from relayd.errors import LibraryUnavailable
from relayd.rtc.agora import archive as archives
from relayd.rtc.agora.fetch import fetch
from relayd.rtc.agora.installation import (
    INSTALL_COMMAND,
    PACKAGE,
    Installation,
    native_sdk_url,
    require,
    require_wrapper,
)
from relayd.rtc.agora.wheel import install_wrapper


def install(
    report: Callable[[str], None],
    archive: Path | None = None,
    *,
    wrapper: Path | None = None,
    require_hash: str = "",
) -> Installation:
    """Install what is missing, and in any case the given files.

    `archive` is the native SDK's zip, `wrapper` the source distribution of the Python wrapper, if
    already downloaded; both are checked before anything is changed. `require_hash` is the
    SHA-256 that the zip must have, wherever it comes from. `report` gets a line for each step.
    Raises LibraryUnavailable, and UsageError for a `require_hash` that is none.
    """
    wanted = archives.require_hash_form(require_hash) if require_hash else ""
    if archive is not None:
        report(archives.inspect(archive, wanted))
    elif wrapper is None:
        with suppress(LibraryUnavailable):
            found = require()
            report(f"{found} is installed")
            return found
    folder = _place_wrapper(report, wrapper)
    if archive is None:
        with suppress(LibraryUnavailable):
            return require()  # its library is installed and fits
    _install_native(folder, report, archive, wanted)
    return require()


def _place_wrapper(report: Callable[[str], None], wrapper: Path | None) -> Path:
    """Return the wrapper's folder; installs it if it is missing or given."""
    if wrapper is None:
        with suppress(LibraryUnavailable):
            return require_wrapper()[0]
    install_wrapper(report, wrapper)
    try:
        return require_wrapper()[0]
    except LibraryUnavailable as fault:  # a new user folder is found only after a restart
        raise LibraryUnavailable(
            f"pip installed {PACKAGE}, but this process does not see it yet",
            hint=f"again: {INSTALL_COMMAND}",
        ) from fault


def _install_native(
    folder: Path, report: Callable[[str], None], archive: Path | None, wanted: str
) -> None:
    """Put the native SDK into the wrapper's folder, completely or not at all."""
    url = native_sdk_url(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".relayd-", dir=folder) as scratch:
            if archive is None:
                archive = Path(scratch) / "sdk.zip"
                report(f"fetching {url}")
                _fetch(url, archive)
                report(archives.inspect(archive, wanted))
            unpacked = archives.unpack(archive, Path(scratch))
            _swap_in(unpacked, folder / "agora_sdk", Path(scratch) / "old")
        version_file = folder / "version.txt"
        version_file.write_text(url, "utf-8")  # the wrapper compares: no line feed
        version_file.chmod(0o644)
    except PermissionError as fault:
        raise LibraryUnavailable(
            f"{fault.filename or folder} cannot be written",
            hint="run it as the owner of this Python's packages",
        ) from fault
    except OSError as fault:
        raise LibraryUnavailable(f"the native library cannot be put in place: {fault}") from fault


def _fetch(url: str, into: Path) -> None:
    with into.open("wb") as file:
        try:
            fetch(url, file, largest=archives.LARGEST)
        except LibraryUnavailable as fault:
            raise LibraryUnavailable(fault.message, hint=archives.MANUAL_HINT) from fault


def _swap_in(new: Path, place: Path, old: Path) -> None:
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
