"""Whether Agora's SDK can be loaded here: found out without loading it.

Importing the wrapper is no harmless thing: where its native library is missing, or its
`version.txt` is not to the letter what its source expects, the import deletes the library and
downloads another, unverified, into site-packages (`agora/__init__.py` of 2.4.10). So everything
it looks at is looked at here first.
"""

import ast
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from relayd.errors import LibraryUnavailable

PACKAGE = "agora-python-server-sdk"
SUPPORTED = "2.4.10"
"""The one version whose units and calls relayd knows: up to 2.4.9 an encoder's bitrate was in
bit/s, from 2.4.10 on in kbit/s, and 2.4.10 brings the native fix for two joins under one uid."""
MEND = "relayd agora-install"
LIBRARIES = ("libagora_rtc_sdk.so", "libaosl.so")
"""What the wrapper loads on Linux; it comes with its native SDK."""
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of an ELF header (System V ABI), by `platform.machine()`."""


@dataclass(frozen=True, slots=True)
class Installation:
    """An installed wrapper that can be imported without surprises."""

    folder: Path
    """Of the package `agora`."""
    version: str

    @property
    def libraries(self) -> Path:
        """The folder of the native libraries."""
        return self.folder / "agora_sdk"

    def __str__(self) -> str:
        return f"{PACKAGE} {self.version}"


def require() -> Installation:
    """Return the installation; LibraryUnavailable says what is wrong with it and how to fix it."""
    folder, installed = require_wrapper()
    for fault in _faults(folder):
        raise LibraryUnavailable(f"rtc.kind = 'agora': {fault}", hint=MEND)
    return Installation(folder, installed)


def require_wrapper() -> tuple[Path, str]:
    """Return folder and version of the Python wrapper, whatever the state of its native library."""
    if platform.system() != "Linux" or platform.machine() not in _ELF_MACHINES:
        here = f"{platform.system()} on {platform.machine()}"
        raise LibraryUnavailable(
            f"rtc.kind = 'agora': Agora's SDK is made for Linux on x86_64 and aarch64, not {here}",
            hint="use such a machine",
        )
    spec = find_spec("agora")
    if spec is None or not spec.origin:
        raise LibraryUnavailable(f"rtc.kind = 'agora' needs {PACKAGE} {SUPPORTED}", hint=MEND)
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        installed = "of unknown version"
    if installed != SUPPORTED:
        raise LibraryUnavailable(
            f"rtc.kind = 'agora': {PACKAGE} is {installed}, relayd works with {SUPPORTED} alone,"
            " as units and calls differ between versions",
            hint=MEND,
        )
    return Path(spec.origin).parent, installed


def worker_environment() -> Mapping[str, str]:
    """Return the variables a process needs at its start to load the native library.

    The library opens parts of itself by bare name at run time, which no later setting helps.
    """
    folders = str(require().libraries), os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


def native_sdk_url(folder: Path) -> str:
    """Return the URL that the wrapper's own source names for this machine's native SDK.

    The wrapper compares it with `version.txt`, to the letter. Raises LibraryUnavailable
    where the source names none, so is not the one that is known.
    """
    tree = ast.parse((folder / "__init__.py").read_text("utf-8"))
    named = dict(_assigned_texts(tree))
    url = named.get("url" if platform.machine() == "aarch64" else "linux_sdk", "")
    if not url.startswith("https://"):
        raise LibraryUnavailable(
            f"{folder / '__init__.py'} names no native SDK; it is not that of {SUPPORTED}",
            hint=f"pip uninstall {PACKAGE}, then: {MEND}",
        )
    return url


def _assigned_texts(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return each `name = "text"` in the order of the source; the last of a name is what counts."""
    assigns = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    for node in sorted(assigns, key=lambda node: node.lineno):
        target, value = node.targets[0], node.value
        if (
            isinstance(target, ast.Name)
            and isinstance(value, ast.Constant)
            and isinstance(value.value, str)
        ):
            yield target.id, value.value


def _faults(folder: Path) -> Iterator[str]:
    """Say what an import of the wrapper would stumble over."""
    for name in LIBRARIES:
        file = folder / "agora_sdk" / name
        try:
            made_for = _elf_machine(file)
        except FileNotFoundError:
            yield f"the native library {file} is missing"
        except OSError as fault:
            yield f"the native library {file} cannot be read: {fault.strerror}"
        else:
            if made_for != _ELF_MACHINES[platform.machine()]:
                seen = "no library at all" if made_for is None else "made for another machine"
                yield f"{file} is {seen}; this one is {platform.machine()}"
    url, told = native_sdk_url(folder), folder / "version.txt"
    try:
        is_told = told.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        is_told = ""
    if is_told != url:
        yield f"{told} does not name the native SDK that the wrapper wants; it would replace it"


def _elf_machine(file: Path) -> int | None:
    """Return e_machine of a shared library, None where it is none."""
    with file.open("rb") as stream:
        head = stream.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:  # noqa: PLR2004 - bytes up to e_machine
        return None
    return int.from_bytes(head[18:20], "little")
