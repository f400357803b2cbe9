"""Installing Agora's wrapper without running its build.

Its `setup.py install` downloads the native library, verifies neither certificate nor content, and
fails where the vendor's host cannot be reached. So its source is fetched by pip, packed into a
wheel as it is, and that wheel is installed by pip, which can uninstall it too.
"""

import importlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from relayd.errors import LibraryUnavailable
from relayd.rtc.agora.installation import MEND, PACKAGE, SUPPORTED

_DISTRIBUTION = PACKAGE.replace("-", "_")
_MENDS = {
    "externally-managed-environment": "install relayd into a virtual environment: python3 -m venv",
    "No module named pip": f"{sys.executable} -m ensurepip, then: {MEND}",
}
"""What helps where pip says this; the first is PEP 668's."""
_ABOUT_WHEEL = "Wheel-Version: 1.0\nGenerator: relayd\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def install_wrapper(say: Callable[[str], None]) -> None:
    """Install the wrapper's supported version for this Python; LibraryUnavailable if that fails."""
    wanted = f"{PACKAGE}=={SUPPORTED}"
    with tempfile.TemporaryDirectory(prefix="relayd-") as name:
        folder = Path(name)
        say(f"pip download {wanted}")
        _pip("download", "--no-deps", "--no-binary", PACKAGE, "--dest", name, wanted)
        wheel = pack(next(folder.glob("*.tar.gz")), folder)
        say(f"pip install {wheel.name}")
        _pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    importlib.invalidate_caches()


def pack(source: Path, into: Path) -> Path:
    """Pack the wrapper's source distribution into a wheel; gives its path."""
    wheel = into / f"{_DISTRIBUTION}-{SUPPORTED}-py3-none-any.whl"
    about = f"{_DISTRIBUTION}-{SUPPORTED}.dist-info"
    with tarfile.open(source) as packed, zipfile.ZipFile(wheel, "w") as zipped:
        names = []
        for name, content in _contents(packed, about):
            zipped.writestr(name, content)
            names.append(name)
        zipped.writestr(f"{about}/WHEEL", _ABOUT_WHEEL)
        record = [*names, f"{about}/WHEEL", f"{about}/RECORD"]
        zipped.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in record))
    return wheel


def _contents(packed: tarfile.TarFile, about: str) -> Iterator[tuple[str, bytes]]:
    """Give the files of the package, and what it says of itself."""
    for member in packed:
        _, *inner = PurePosixPath(member.name).parts
        file = packed.extractfile(member)
        if file is None:
            continue
        if inner[:1] == ["agora"]:
            yield "/".join(inner), file.read()
        elif inner == ["PKG-INFO"]:
            yield f"{about}/METADATA", file.read()


def _pip(*arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,  # root's may be stricter, and a service reads it as another user
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.lower().startswith("error: ")]
        why = lines[0].split(": ", 1)[1] if lines else done.stderr.strip()
        mend = next((mend for sign, mend in _MENDS.items() if sign in done.stderr), "")
        raise LibraryUnavailable(
            f"pip {arguments[0]} failed: {why or 'it said nothing'}", mend=mend
        )
