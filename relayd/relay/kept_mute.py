"""A mute that outlives the process: after a crash or a restart nobody is heard unasked."""

import os
from pathlib import Path

from relayd.logs import LogEvent, get
from relayd.process.folders import make_private

_log = get("sound")


class KeptMute:
    """An empty file in the relay's state directory that is there while the relay is muted."""

    def __init__(self, state_directory: Path, relay: str) -> None:
        """`relay` is the relay's name; its next run under that name finds the file."""
        self._path = state_directory / f"{relay}.muted"

    def is_set(self) -> bool:
        """Whether the last run ended muted. Where that cannot be told, it counts as muted."""
        try:
            self._path.lstat()
        except FileNotFoundError:
            return False
        except OSError as fault:
            _log.warning(LogEvent.SOUND_MUTE_UNKNOWN, reason=str(fault))
            return True
        _log.info(LogEvent.SOUND_STILL_MUTED)
        return True

    def set(self) -> None:
        """Remember a mute."""
        try:
            make_private(self._path.parent)
            self._path.touch(0o600)
            self._sync()
        except OSError as fault:
            _log.warning(LogEvent.SOUND_MUTE_NOT_KEPT, reason=str(fault))

    def clear(self) -> None:
        """Forget it."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as fault:
            _log.warning(LogEvent.SOUND_MUTE_NOT_KEPT, reason=str(fault))

    def _sync(self) -> None:
        """Have the disk know the file, too: the machine may crash as well."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
