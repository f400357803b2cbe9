"""What a virtual machine boots from, made once and kept outside the checkout.

A Debian kernel, its headers and v4l2loopback in three versions are downloaded with an apt
configuration of our own: the system's sources, package lists and kernel stay as they are.
Only the tools (qemu, a compiler, …) are installed, when they are missing.
"""

import fcntl
import hashlib
import lzma
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
TOOLS: Final = (
    "qemu-system-x86", "busybox-static", "kmod", "gcc-12", "make", "cpio", "binutils",
    "v4l-utils", "ffmpeg", "alsa-utils",
)  # fmt: skip
"""apt packages of the host; the guest sees them too, for it runs on the host's root."""
RELEASES: Final = {"0.12": "bookworm", "0.13": "bookworm-backports", "0.15": "trixie"}
"""v4l2loopback's versions, by the Debian release that carries them."""
KERNEL_RELEASE: Final = "bookworm"
"""6.1: all three versions compile for it. Debian's cloud kernel has no video core."""
GUEST_MODULES: Final = (
    "virtio_pci", "virtio_console", "virtio_rng", "virtio_net", "9pnet_virtio", "9p",
    "overlay", "fuse", "videodev",
)  # fmt: skip
LOADABLE_MODULES: Final = ("vivid", "snd-aloop")
"""Those that `modprobe` finds in the guest: vivid stands for a real capture device, snd-aloop is
the sound card of a system service."""
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR: Final = "http://deb.debian.org/debian"
_KERNEL_IMAGE = re.compile(r"^\s*(?:Pre)?Depends: (linux-image-(\S+-amd64))", re.MULTILINE)
_HEADER_PARTS = re.compile(r"^\s*Depends: (linux-(?:headers|kbuild|compiler)-\S+)", re.MULTILINE)
_XZ_MAGIC = b"\xfd7zXZ\0"


class CannotBoot(Exception):
    """Something that a virtual machine needs cannot be had here; says what."""


@dataclass(frozen=True, slots=True)
class Image:
    """What qemu is given."""

    kernel: Path
    initrd: Path
    loopback: str
    """v4l2loopback's full version, such as 0.12.7."""


def cache_directory() -> Path:
    """Where all of it lies: $RELAYD_VM_CACHE, else in the user's cache."""
    if given := os.environ.get("RELAYD_VM_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "relayd-vm"


def prepare(series: str = "0.12") -> Image:
    """Return an image with v4l2loopback of this series, made if need be; CannotBoot if it can't."""
    if platform.machine() != "x86_64":
        raise CannotBoot(f"the guest shares this machine's root, and that is {platform.machine()}")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        try:
            install(TOOLS)
            kernel = _Kernel.fetch(cache)
            module = _loopback(cache, kernel, series)
            return _image(cache, kernel, module)
        except subprocess.CalledProcessError as fault:
            words = (fault.stderr or fault.stdout or "").strip()[-800:]
            raise CannotBoot(f"{' '.join(map(str, fault.cmd))}: {words}") from fault
        except OSError as fault:
            raise CannotBoot(str(fault)) from fault


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout


def install(packages: Sequence[str]) -> None:
    """Install apt packages that are missing; CalledProcessError when that fails."""
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    print(f"installing from apt: {' '.join(missing)}", flush=True)  # noqa: T201 - a person waits
    root = [] if os.getuid() == 0 else ["sudo"]
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    wait = ("-o", "DPkg::Lock::Timeout=300")
    _run(*apt, *wait, "-qq", "update")
    _run(*apt, *wait, "install", "-y", "-qq", "--no-install-recommends", *missing)


def _installed(package: str) -> bool:
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f=${db:Status-Status}", package],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return asked.stdout == "installed"


class _Apt:
    """apt with sources and lists of our own, for downloads alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("lists/partial", "archives/partial", "parts"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        releases = dict.fromkeys([KERNEL_RELEASE, *RELEASES.values()])
        lines = [f"deb [signed-by={KEYRING}] {MIRROR} {name} main\n" for name in releases]
        (folder / "sources.list").write_text("".join(lines))
        self._options = [
            f"-oDir::Etc::sourcelist={folder}/sources.list",
            f"-oDir::Etc::sourceparts={folder}/parts",
            f"-oDir::Etc::preferences={folder}/none",
            f"-oDir::Etc::preferencesparts={folder}/parts",
            f"-oDir::State::lists={folder}/lists",
            f"-oDir::Cache={folder}",
            "-oAPT::Architecture=amd64",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Languages=none",
            f"-oAPT::Default-Release={KERNEL_RELEASE}",
        ]
        if not (folder / "updated").exists():
            _run("apt-get", *self._options, "-qq", "-oAPT::Update::Error-Mode=any", "update")
            (folder / "updated").touch()

    def depends(self, package: str) -> str:
        return _run("apt-cache", *self._options, "depends", package)

    def unpack(self, into: Path, *packages: str) -> None:
        """Download packages (NAME or NAME/RELEASE) and unpack them, without installing."""
        debs = into.with_name(into.name + ".debs")
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir()
        _run("apt-get", *self._options, "-qq", "download", *packages, cwd=debs)
        for deb in debs.iterdir():
            _run("dpkg", "-x", deb, into)
        shutil.rmtree(debs)


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A kernel and its headers, unpacked."""

    root: Path
    release: str

    @classmethod
    def fetch(cls, cache: Path) -> "_Kernel":
        root, done = cache / "kernel", cache / "kernel/release"
        if done.exists():
            return cls(root, done.read_text())
        apt = _Apt(cache / "apt")
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if not (found := _KERNEL_IMAGE.search(apt.depends("linux-image-amd64"))):
            raise CannotBoot("apt has no linux-image-amd64")
        image, release = found.groups()
        headers = f"linux-headers-{release}"
        apt.unpack(root, image, headers, *_HEADER_PARTS.findall(apt.depends(headers)))
        # The one absolute path in the headers package.
        makefile = root / f"usr/src/{headers}/Makefile"
        makefile.write_text(
            makefile.read_text().replace(
                "include /usr/src/", "include $(dir $(lastword $(MAKEFILE_LIST)))../"
            )
        )
        _run("depmod", "-b", root, release)
        # qemu starts an unpacked kernel through PVH, which saves 3 s of emulated BIOS and xz.
        packed = (root / f"boot/vmlinuz-{release}").read_bytes()
        unpacked = lzma.LZMADecompressor().decompress(packed[packed.index(_XZ_MAGIC) :])
        (root / "vmlinux").write_bytes(unpacked)
        done.write_text(release)
        return cls(root, release)

    @property
    def headers(self) -> Path:
        return self.root / f"usr/src/linux-headers-{self.release}"

    def files_of(self, module: str) -> list[Path]:
        """Return the files of a module and of what it needs, in the order of loading."""
        lines = _run("modprobe", "-d", self.root, "-S", self.release, "--show-depends", module)
        return [Path(words[1]) for line in lines.splitlines() if (words := line.split())[0] == "insmod"]  # fmt: skip  # noqa: E501


@dataclass(frozen=True, slots=True)
class _Module:
    """A compiled v4l2loopback."""

    file: Path
    version: str


def _loopback(cache: Path, kernel: _Kernel, series: str) -> _Module:
    folder = cache / f"v4l2loopback-{series}"
    if not list(folder.glob("usr/src/v4l2loopback-*/v4l2loopback.ko")):
        apt = _Apt(cache / "apt")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        apt.unpack(folder, f"v4l2loopback-dkms/{RELEASES[series]}")
        (source,) = folder.glob("usr/src/v4l2loopback-*")
        _run("make", "-C", kernel.headers, f"M={source}", "CC=gcc-12", "modules")
    (file,) = folder.glob("usr/src/v4l2loopback-*/v4l2loopback.ko")
    return _Module(file, file.parent.name.removeprefix("v4l2loopback-"))


def _image(cache: Path, kernel: _Kernel, module: _Module) -> Image:
    """Pack the initramfs: busybox, our init and the modules; made again when those change."""
    init = HERE / "init.sh"
    recipe = hashlib.sha256(
        init.read_bytes() + repr((GUEST_MODULES, LOADABLE_MODULES)).encode()
    ).hexdigest()[:12]
    initrd = cache / f"initrd-{module.version}-{recipe}.cpio"
    image = Image(kernel.root / "vmlinux", initrd, module.version)
    if initrd.exists():
        return image
    tree = cache / "initrd"
    shutil.rmtree(tree, ignore_errors=True)
    modules = tree / f"lib/modules/{kernel.release}"
    for folder in (*(tree / name for name in ("bin", "proc", "sys", "dev", "ro", "tmp", "new")), modules):  # fmt: skip  # noqa: E501
        folder.mkdir(parents=True)
    shutil.copy2("/bin/busybox", tree / "bin/busybox")
    shutil.copy2(init, tree / "init")
    (tree / "init").chmod(0o755)
    files = list(dict.fromkeys(file for name in GUEST_MODULES for file in kernel.files_of(name)))
    more = [file for name in LOADABLE_MODULES for file in kernel.files_of(name)]
    for file in dict.fromkeys((*files, *more, module.file)):
        _run("strip", "-g", "-o", modules / file.name, file)
    names = [f"/{(modules / file.name).relative_to(tree)}\n" for file in files]
    (tree / "modules").write_text("".join(names))
    for listing in (kernel.root / f"lib/modules/{kernel.release}").glob("modules.[bo]*"):
        if listing.name.startswith(("modules.builtin", "modules.order")):
            shutil.copy2(listing, modules)
    _run("depmod", "-b", tree, kernel.release)
    packed = subprocess.run(
        "find . | cpio -o -H newc --quiet", shell=True, cwd=tree, check=True, capture_output=True
    )
    whole = initrd.with_suffix(".new")
    whole.write_bytes(packed.stdout)
    whole.rename(initrd)
    shutil.rmtree(tree)
    return image
