"""Folders that are their owner's alone, whatever the umask."""

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder and those above it that are missing, each its owner's alone; raises OSError.

    Whatever the umask: `Path.mkdir` gives the ones above what that leaves, and whoever may write
    there could put a folder of his own in the place of ours.
    """
    if not folder.parent.exists():
        make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
