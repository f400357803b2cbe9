"""The folder for the SDK's log and caches: one per process, as two would share files.

During a rotation two workers run at a time, and relays may share a state directory.
"""

import os
import shutil
from pathlib import Path

from relayd.errors import ConfigError
from relayd.process.folders import make_private

KEPT = 3
"""Folders of dead processes that are kept for debugging."""


def own_folder(state: Path) -> Path:
    """Make and return this process's private folder; remove old folders of dead processes.

    Raises ConfigError if it cannot be made.
    """
    common = state / "agora"
    own = common / str(os.getpid())
    try:
        make_private(common)
        for dead in sorted(filter(_is_dead, common.iterdir()), key=_age)[KEPT:]:
            shutil.rmtree(dead, ignore_errors=True)
        own.mkdir(mode=0o700, exist_ok=True)
    except OSError as fault:
        raise ConfigError([f"state.directory: {own}: {fault.strerror}"]) from fault
    return own


def _is_dead(folder: Path) -> bool:
    return folder.name.isdigit() and not Path("/proc", folder.name).exists()


def _age(folder: Path) -> float:
    return -folder.stat().st_mtime
