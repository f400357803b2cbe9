"""The stand-in of Agora's native library, under Agora's own Python wrapper.

The wrapper comes out of its source distribution as it is; nothing in it is patched. Beside it
stands a library of our own making, native/*.c, that has every function the wrapper looks up and
speaks to the tests' hub instead of Agora's servers.
"""

import ast
import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

DISTRIBUTION = "agora_python_server_sdk"
NATIVE = Path(__file__).with_name("native")
FLAGS = [
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"),
    *("-fPIC", "-shared", "-pthread", "-fvisibility=hidden"),
]

# The wrapper's own variable that ends up with this machine's download, by what assigns it.
DOWNLOAD = {"x86_64": "linux_sdk", "aarch64": "url"}

DEFINED = re.compile(r"^(?:API [\w ]+[ *]|\w+\()(agora_\w+)", re.MULTILINE)


class CompilerMissing(RuntimeError):
    """There is no gcc, and so no stand-in."""


def build_site(sdist: Path, into: Path, *, flags: Sequence[str] = ()) -> Path:
    """Build a folder for PYTHONPATH: the wrapper, what pip would know of it, and our library.

    It is built once for the same inputs; several processes may ask for it at a time. `flags`
    are more of gcc's.
    """
    inputs = _fingerprint(sdist, flags)
    stamp = into / "built-from"
    into.mkdir(parents=True, exist_ok=True)
    with (into / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == inputs):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(into / "agora", ignore_errors=True)
            _unpack(sdist, into)
            _add_libraries(into / "agora", flags)
            stamp.write_text(inputs)
    return into


def bound_names(wrapper: Path) -> set[str]:
    """Name every function of the library that the wrapper looks up, by its own source."""
    return {
        node.attr
        for tree in _sources(wrapper)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "agora_lib"
    }


def defined_names() -> set[str]:
    """Name every function that has behaviour in native/*.c."""
    return {name for source in NATIVE.glob("*.c") for name in DEFINED.findall(source.read_text())}


def download_url(wrapper: Path) -> str:
    """Find the URL that the wrapper would download from on this machine."""
    variable = DOWNLOAD[platform.machine()]
    tree = ast.parse((wrapper / "__init__.py").read_text())
    urls = [
        (node.lineno, node.value.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and [ast.unparse(target) for target in node.targets] == [variable]
    ]
    return max(urls)[1]


def _sources(wrapper: Path) -> Iterator[ast.Module]:
    for path in sorted(wrapper.rglob("*.py")):
        yield ast.parse(path.read_text())


def _fingerprint(sdist: Path, flags: Sequence[str]) -> str:
    paths = [sdist, Path(__file__), *sorted(NATIVE.iterdir())]
    parts = [path.name.encode() + path.read_bytes() for path in paths]
    parts.append(" ".join(flags).encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _unpack(sdist: Path, into: Path) -> None:
    """Take the package and its metadata out of the source distribution."""
    with tarfile.open(sdist) as archive:
        for member in archive:
            root, *inner = PurePosixPath(member.name).parts
            content = archive.extractfile(member)
            if content is None or not inner:
                continue
            if inner[0] == "agora" and ".." not in inner:
                _write(into.joinpath(*inner), content.read())
            elif inner == ["PKG-INFO"]:
                version = root.rpartition("-")[2]
                _write(into / f"{DISTRIBUTION}-{version}.dist-info" / "METADATA", content.read())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _add_libraries(wrapper: Path, flags: Sequence[str]) -> None:
    """Build what the wrapper loads, and have it believe that it was downloaded."""
    libraries = wrapper / "agora_sdk"
    libraries.mkdir(exist_ok=True)
    missing = sorted(bound_names(wrapper) - defined_names())
    no_ops = libraries / "no_ops.c"
    no_ops.write_text('#include "service.h"\n\n' + "".join(f"NO_OP({name})\n" for name in missing))
    sources = [*sorted(NATIVE.glob("*.c")), no_ops]
    _compile(libraries / "libagora_rtc_sdk.so", sources, flags)
    empty = libraries / "aosl.c"
    empty.write_text("extern int aosl;\n")
    _compile(libraries / "libaosl.so", [empty], flags)
    # Without a line feed: the wrapper compares the whole line, and on a difference deletes the
    # libraries and downloads Agora's.
    (wrapper / "version.txt").write_text(download_url(wrapper))


def _compile(library: Path, sources: Sequence[Path], flags: Sequence[str]) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        raise CompilerMissing("the stand-in of Agora's library needs gcc: apt-get install gcc")
    command = [gcc, *FLAGS, *flags, f"-I{NATIVE}", "-o", str(library), *map(str, sources)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{library.name} does not compile:\n{result.stderr}")
