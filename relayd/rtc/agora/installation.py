"""Checks whether Agora's SDK can be loaded here, without loading it.

Importing the wrapper has side effects: if its native library is missing, or its `version.txt` is
not exactly what its source expects, the import deletes the library and downloads another,
unverified, into site-packages (`agora/__init__.py` of 2.4.10). So everything that the import
checks is checked here first.
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
"""The only version whose units and calls relayd knows: up to 2.4.9 an encoder's bitrate was in
bit/s, from 2.4.10 on in kbit/s, and 2.4.10 brings the native fix for two joins under one uid."""
INSTALL_COMMAND = "relayd agora-install"
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
        raise LibraryUnavailable(f"rtc.kind = 'agora': {fault}", hint=INSTALL_COMMAND)
    return Installation(folder, installed)


def require_wrapper() -> tuple[Path, str]:
    """Return folder and version of the Python wrapper, regardless of its native library."""
    if platform.system() != "Linux" or platform.machine() not in _ELF_MACHINES:
        here = f"{platform.system()} on {platform.machine()}"
        raise LibraryUnavailable(
            f"rtc.kind = 'agora': Agora's SDK is made for Linux on x86_64 and aarch64, not {here}",
            hint="use such a machine",
        )
    spec = find_spec("agora")
    if spec is None or not spec.origin:
        raise LibraryUnavailable(
            f"rtc.kind = 'agora' needs {PACKAGE} {SUPPORTED}", hint=INSTALL_COMMAND
        )
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        installed = "of unknown version"
    if installed != SUPPORTED:
        raise LibraryUnavailable(
            f"rtc.kind = 'agora': {PACKAGE} is {installed}, relayd works with {SUPPORTED} alone,"
            " as units and calls differ between versions",
            hint=INSTALL_COMMAND,
        )
    return Path(spec.origin).parent, installed


def worker_environment() -> Mapping[str, str]:
    """Return the variables a process needs at its start to load the native library.

    The library opens parts of itself by bare name at run time, so a later setting has no effect.
    """
    folders = str(require().libraries), os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


def native_sdk_url(folder: Path) -> str:
    """Return the URL that the wrapper's own source names for this machine's native SDK.

    The wrapper compares it exactly with `version.txt`. Raises LibraryUnavailable if the source
    names none, and so is not the known one.
    """
    tree = ast.parse((folder / "__init__.py").read_text("utf-8"))
    named = dict(_assigned_texts(tree))
    url = named.get("url" if platform.machine() == "aarch64" else "linux_sdk", "")
    if not url.startswith("https://"):
        raise LibraryUnavailable(
            f"{folder / '__init__.py'} names no native SDK; it is not that of {SUPPORTED}",
            hint=f"pip uninstall {PACKAGE}, then: {INSTALL_COMMAND}",
        )
    return url


def _assigned_texts(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return each `name = "text"` in the order of the source; the last one of a name counts."""
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
    """Return what would make an import of the wrapper fail or download."""
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
    url, version_file = native_sdk_url(folder), folder / "version.txt"
    try:
        named = version_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        named = ""
    if named != url:
        yield (
            f"{version_file} does not name the native SDK that the wrapper wants;"
            " it would replace it"
        )


def _elf_machine(file: Path) -> int | None:
    """Return e_machine of a shared library, None for another file."""
    with file.open("rb") as stream:
        head = stream.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:  # noqa: PLR2004 - bytes up to e_machine
        return None
    return int.from_bytes(head[18:20], "little")
