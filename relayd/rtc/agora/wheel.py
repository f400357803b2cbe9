"""Installs Agora's wrapper without running its code.

Its `setup.py` downloads the native library and verifies neither certificate nor content. So its
files are packed into a wheel, which pip installs and can uninstall.
"""

import importlib
import io
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from relayd.errors import LibraryUnavailable
from relayd.rtc.agora import sdist
from relayd.rtc.agora.installation import PACKAGE, SUPPORTED
from relayd.rtc.agora.pip_program import pip_install

MOST_FILES: Final = 1000
"""Members of the source distribution; the right one has about 100."""
LARGEST_UNPACKED: Final = 16 * 1024 * 1024
"""Bytes of all of them; those of the right one are less than 1 MB."""
_DISTRIBUTION: Final = PACKAGE.replace("-", "_")
_ABOUT_WHEEL: Final = (
    "Wheel-Version: 1.0\nGenerator: relayd\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)
_UNSOUND: Final = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError)
"""What tarfile raises for a file that is no archive, or is damaged."""


def install_wrapper(report: Callable[[str], None], given: Path | None = None) -> None:
    """Install the wrapper's supported version for this Python, from the file `given` if any.

    Raises LibraryUnavailable.
    """
    source = sdist.obtain(report, given)
    with tempfile.TemporaryDirectory(prefix="relayd-") as folder:
        wheel = pack(source, Path(folder))
        report(f"pip install {wheel.name}")
        pip_install(wheel)
    importlib.invalidate_caches()


def pack(source: bytes, into: Path) -> Path:
    """Pack a source distribution of the wrapper into a wheel; returns its path.

    Nothing is unpacked to disk. Raises LibraryUnavailable for one that is unsound or too large,
    or that has links and paths which lead elsewhere.
    """
    wheel = into / f"{_DISTRIBUTION}-{SUPPORTED}-py3-none-any.whl"
    about = f"{_DISTRIBUTION}-{SUPPORTED}.dist-info"
    names = []
    with zipfile.ZipFile(wheel, "w") as zipped:
        try:
            with tarfile.open(fileobj=io.BytesIO(source), mode="r:gz") as packed:
                for name, content in _contents(packed, about):
                    zipped.writestr(name, content)
                    names.append(name)
        except _UNSOUND as fault:
            raise LibraryUnavailable(f"{sdist.FILENAME} is not sound: {fault}") from fault
        zipped.writestr(f"{about}/WHEEL", _ABOUT_WHEEL)
        record = [*names, f"{about}/WHEEL", f"{about}/RECORD"]
        zipped.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in record))
    return wheel


def _contents(packed: tarfile.TarFile, about: str) -> Iterator[tuple[str, bytes]]:
    """Return the files of the package and its metadata; ValueError for a bad member."""
    size = 0
    for number, member in enumerate(packed, 1):
        size += member.size
        if number > MOST_FILES or size > LARGEST_UNPACKED:
            raise ValueError(f"more than {MOST_FILES} files or {LARGEST_UNPACKED} bytes")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
            raise ValueError(f"{member.name!r} is a link, or leads elsewhere")
        _, *inner = path.parts
        file = packed.extractfile(member)
        if file is None:
            continue
        if inner[:1] == ["agora"]:
            yield "/".join(inner), file.read()
        elif inner == ["PKG-INFO"]:
            yield f"{about}/METADATA", file.read()
