"""The source distribution of Agora's wrapper, identified by its hash.

pip is not used to download it: for a source distribution's metadata, pip runs its build.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relayd.errors import LibraryUnavailable
from relayd.logs import redact
from relayd.rtc.agora import index
from relayd.rtc.agora.fetch import fetch
from relayd.rtc.agora.installation import PACKAGE, SUPPORTED
from relayd.rtc.agora.pip_program import pip_settings

FILENAME: Final = f"{PACKAGE.replace('-', '_')}-{SUPPORTED}.tar.gz"
SHA256: Final = "f02cae825be2986435ef5b9a0ab3de30eaa9bf692a9be37a3f5f90fe338788cd"
"""Of that file, as PyPI has it."""
LARGEST: Final = 1024 * 1024
"""Bytes of a file that is read; the right one has 94 kB."""
LARGEST_PAGE: Final = 4 * 1024 * 1024
"""Bytes of an index's page; PyPI's for this package has about 20 kB."""
_MANUAL_HINT: Final = f"fetch {FILENAME} elsewhere, then: relayd agora-install --wrapper FILE"


def obtain(report: Callable[[str], None], given: Path | None = None) -> bytes:
    """Return the file's content, from `given` or from where pip is configured to look.

    `report` gets a line with its source. Raises LibraryUnavailable, also for a wrong hash.
    """
    url = given.absolute().as_uri() if given else _find()
    if not given:
        report(f"fetching {redact(url)}")
    try:
        content = _content(url, LARGEST)[0]
    except LibraryUnavailable as fault:
        raise LibraryUnavailable(fault.message, hint=_MANUAL_HINT) from fault
    seen = hashlib.sha256(content).hexdigest()
    if seen != SHA256:
        raise LibraryUnavailable(
            f"{given or redact(url)} is refused: its SHA-256 is {seen}, that of {PACKAGE}"
            f" {SUPPORTED} is {SHA256}",
            hint=_MANUAL_HINT,
        )
    return content


def _find() -> str:
    """Return the URL of the file at the first place that has it."""
    places = index.places(PACKAGE, pip_settings())
    for folder in places.folders:
        if (folder / FILENAME).is_file():
            return (folder / FILENAME).absolute().as_uri()
    faults = []
    for page_url in places.pages:
        try:
            page, found_at = _content(page_url, LARGEST_PAGE)
        except LibraryUnavailable as fault:
            faults.append(fault.message)
            continue
        if url := index.link(found_at, page, FILENAME):
            return url
        faults.append(f"{redact(page_url)} has no {FILENAME}")
    why = "; ".join(faults) or "pip is configured to use no index, and no folder has it"
    raise LibraryUnavailable(f"{PACKAGE} {SUPPORTED} cannot be fetched: {why}", hint=_MANUAL_HINT)


def _content(url: str, largest: int) -> tuple[bytes, str]:
    """Return what is at a URL, and its final URL."""
    content = io.BytesIO()
    found_at = fetch(url, content, largest=largest, accept=index.ACCEPT)
    return content.getvalue(), found_at
