"""The .deb in the shapes that its tests need, out of one build."""

import re
import shutil
import subprocess
from pathlib import Path


def unpack(package: Path, into: Path) -> Path:
    """Return a folder with the package's files, and its control files in DEBIAN."""
    subprocess.run(["dpkg-deb", "-R", package, into], check=True)
    return into


def version_of(package: Path) -> str:
    """Return the package's version."""
    asked = ["dpkg-deb", "-f", str(package), "Version"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def renumbered(package: Path, version: str, into: Path) -> Path:
    """Return the same package under another version: one line of its control file is changed."""
    control = into / "control"
    subprocess.run(["dpkg-deb", "-e", package, control], check=True)
    file = control / "control"
    file.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", file.read_text()))
    packed = into / "control.tar"
    owner = ("--owner=root:0", "--group=root:0", "--sort=name")
    subprocess.run(["tar", *owner, "-C", control, "-cf", packed, "."], check=True)
    other = into / f"relayd_{version}.deb"
    shutil.copyfile(package, other)
    subprocess.run(["ar", "r", other, packed], check=True, capture_output=True)
    return other
