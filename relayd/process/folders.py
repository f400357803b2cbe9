"""Folders that only their owner can access, whatever the umask."""

from pathlib import Path


def make_private(folder: Path) -> None:
    """Create a folder and its missing parents, each only for its owner; raises OSError.

    Whatever the umask: `Path.mkdir` creates parents with the umask's permissions, and anyone who
    may write there could replace our folder with their own.
    """
    if not folder.parent.exists():
        make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
