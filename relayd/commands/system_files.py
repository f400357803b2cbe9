"""The files that a system needs to run relays, and how those in place compare with them.

Units, the service's user, the virtual camera's module options and its device name: plain files,
shipped in `systemd/` and `config/`. Checksums of installed files are recorded, so that a locally
changed file can be distinguished from one of an older relayd. A changed file is never replaced or
removed without the user's consent (relayd.commands.installer asks).
"""

import difflib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from relayd.errors import Unavailable, UsageError

PACKAGED_COMMAND = "/usr/bin/relayd"
"""The program in the shipped units; replaced by the relayd that installs them."""
HIDDEN_FROM_SERVICES = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - names
"""Folders that the system's unit cannot see: ProtectHome= and PrivateTmp=."""


class Layout(Enum):
    """Where the files are installed."""

    SYSTEM = "system"
    """By an administrator, below /etc."""
    USER = "user"
    """By a desktop user, below $XDG_CONFIG_HOME: needs no root, and is no system service."""
    PACKAGE = "package"
    """By a distribution's package: /usr/lib, and /etc for files that people edit."""


@dataclass(frozen=True, slots=True)
class ManagedFile:
    """One shipped file, and where it is installed."""

    source: str
    why: str
    targets: Mapping[Layout, str]
    """Paths below the layout's root."""


def _managed(source: str, why: str, etc: str, package: str = "", user: str = "") -> ManagedFile:
    targets = {Layout.SYSTEM: etc, Layout.PACKAGE: package or etc, Layout.USER: user}
    return ManagedFile(source, why, {layout: path for layout, path in targets.items() if path})


MANAGED_FILES = (
    _managed(
        "systemd/relayd@.service",
        "the service: relayd@NAME runs /etc/relayd/NAME.toml",
        "etc/systemd/system/relayd@.service",
        "usr/lib/systemd/system/relayd@.service",
    ),
    _managed(
        "systemd/user/relayd@.service",
        "the same for one user: runs ~/.config/relayd/NAME.toml",
        "etc/systemd/user/relayd@.service",
        "usr/lib/systemd/user/relayd@.service",
        "systemd/user/relayd@.service",
    ),
    _managed(
        "config/sysusers.d/relayd.conf",
        "the service's own user",
        "etc/sysusers.d/relayd.conf",
        "usr/lib/sysusers.d/relayd.conf",
    ),
    _managed(
        "config/tmpfiles.d/relayd.conf",
        "/etc/relayd, for root and the service alone",
        "etc/tmpfiles.d/relayd.conf",
        "usr/lib/tmpfiles.d/relayd.conf",
    ),
    _managed(
        "config/udev/60-relayd.rules",
        "/dev/relayd/0 and 1: names of the cameras that stay",
        "etc/udev/rules.d/60-relayd.rules",
        "usr/lib/udev/rules.d/60-relayd.rules",
    ),
    _managed(
        "config/modprobe.d/relayd.conf",
        "two virtual cameras, with the options that browsers need",
        "etc/modprobe.d/relayd.conf",
    ),
    _managed(
        "config/modules-load.d/relayd.conf",
        "the cameras are there from boot on",
        "etc/modules-load.d/relayd.conf",
    ),
    _managed(
        "config/modprobe.d/relayd-sound.conf",
        "the name of the loopback sound card, once snd-aloop is loaded",
        "etc/modprobe.d/relayd-sound.conf",
    ),
    _managed(
        "config/udev/61-relayd-sound.rules",
        "what desktops call that card",
        "etc/udev/rules.d/61-relayd-sound.rules",
        "usr/lib/udev/rules.d/61-relayd-sound.rules",
    ),
    _managed(
        "config/relayd.toml",
        "every key of a relay's configuration with its meaning",
        "etc/relayd/relayd.toml.example",
        "usr/share/doc/relayd/examples/relayd.toml",
        "relayd/relayd.toml.example",
    ),
)


class FileStatus(Enum):
    """How an installed file compares with the shipped one."""

    ABSENT = "new"
    """There is none."""
    SAME = "in place"
    """It is the shipped one."""
    OLDER = "older"
    """Another version of relayd installed it, and it is unchanged since."""
    CHANGED = "changed"
    """It was changed locally, or is not relayd's."""


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file at its place on this system."""

    managed: ManagedFile
    path: Path
    content: bytes
    """As it would be written."""
    present: bytes | None
    """Its present content; None if there is none."""
    status: FileStatus

    def diff(self) -> str:
        """Return what would change, as a unified diff."""
        texts = [(self.present or b""), self.content]
        was, now = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in texts)
        return "".join(difflib.unified_diff(was, now, str(self.path), "as shipped"))


class Installation:
    """The files of one layout below one root."""

    def __init__(self, layout: Layout, root: Path, command: str) -> None:
        """Inspect the files below `root`; units start `command`. Raises Unavailable."""
        self._layout, self.root, self._command = layout, root, command
        folder = "relayd" if layout is Layout.USER else "etc/relayd"
        self._notes = root / folder / ".installed.json"
        self._known = self._read_notes()
        self.files = [
            self._inspect(managed) for managed in MANAGED_FILES if layout in managed.targets
        ]

    def write(self, placed: InstalledFile) -> None:
        """Write a file, replacing any other. Raises Unavailable."""
        with _disk(placed.path):
            placed.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft = placed.path.with_name(f".{placed.path.name}.relayd-new")
            draft.write_bytes(placed.content)
            draft.chmod(0o644)
            draft.replace(placed.path)
        self._note(placed.path, placed.content)

    def remove(self, placed: InstalledFile) -> None:
        """Remove a file, even a changed one. Raises Unavailable."""
        with _disk(placed.path):
            placed.path.unlink(missing_ok=True)
        self._note(placed.path, None)

    def _inspect(self, managed: ManagedFile) -> InstalledFile:
        path = self.root / managed.targets[self._layout]
        content = (shipped() / managed.source).read_bytes()
        content = content.replace(PACKAGED_COMMAND.encode(), self._command.encode())
        with _disk(path):
            present = path.read_bytes() if path.is_symlink() or path.exists() else None
        if present is None:
            status = FileStatus.ABSENT
        elif present == content:
            status = FileStatus.SAME
        elif self._known.get(str(path)) == _checksum(present):
            status = FileStatus.OLDER
        else:
            status = FileStatus.CHANGED
        return InstalledFile(managed, path, content, present, status)

    def _read_notes(self) -> dict[str, str]:
        with _disk(self._notes), suppress(FileNotFoundError, ValueError):
            notes = json.loads(self._notes.read_text("utf-8"))
            return {str(path): str(checksum) for path, checksum in dict(notes).items()}
        return {}  # every differing file then counts as changed

    def _note(self, path: Path, content: bytes | None) -> None:
        if self._layout is Layout.PACKAGE:  # the package manager tracks its files
            return
        if content is None:
            self._known.pop(str(path), None)
        else:
            self._known[str(path)] = _checksum(content)
        with _disk(self._notes):
            if self._known:
                self._notes.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                self._notes.write_text(json.dumps(self._known, indent=1), "utf-8")
            else:
                self._notes.unlink(missing_ok=True)


def shipped() -> Path:
    """Return the folder of the shipped files, in a wheel or in a checkout."""
    package = Path(__file__).parents[1]
    carried = package / "_shipped"
    return carried if carried.is_dir() else package.parent


def own_command() -> str:
    """Return the path of the running relayd, as a unit would start it."""
    return str(Path(sys.executable).parent / "relayd")


def require_visible(command: str) -> None:
    """Raise UsageError if a system service could not see this relayd or its Python."""
    for path in (command, sys.base_prefix):
        if any(Path(path).is_relative_to(folder) for folder in HIDDEN_FROM_SERVICES):
            raise UsageError(
                f"a system service cannot see {path}",
                hint="install relayd into /opt/relayd with the system's python3,"
                " or give --user for a service of your own",
            )


def user_root(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder of the user's configuration."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser()


def other_module_options(root: Path) -> Iterator[Path]:
    """Return other files that set options of v4l2loopback, as modprobe combines them all."""
    for path in sorted((root / "etc/modprobe.d").glob("*.conf")):
        with suppress(OSError):
            lines = path.read_text("utf-8", "replace").splitlines()
            if path.name != "relayd.conf" and any(
                line.split()[:2] == ["options", "v4l2loopback"] for line in lines
            ):
                yield path


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn OSError into Unavailable."""
    try:
        yield
    except OSError as fault:
        raise Unavailable(
            f"{path}: {fault.strerror}", hint="check the path; root may be needed"
        ) from fault
