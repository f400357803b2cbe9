"""A mute that outlives the process: after a crash or a restart nobody is heard unasked."""

from pathlib import Path

from relayd.akool.files import make_folder, sync_folder
from relayd.logs import LogEvent, get

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
            make_folder(self._path.parent)
            self._path.touch(0o600)
            sync_folder(self._path.parent)  # the machine may crash as well
        except OSError as fault:
            _log.warning(LogEvent.SOUND_MUTE_NOT_KEPT, reason=str(fault))

    def clear(self) -> None:
        """Forget it."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as fault:
            _log.warning(LogEvent.SOUND_MUTE_NOT_KEPT, reason=str(fault))
