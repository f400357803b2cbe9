"""Where a relay's journal and control socket are, by its settings and environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from relayd.config.settings import Settings
from relayd.config.socket_folders import default_socket
from relayd.errors import ConfigError


def state_directory(settings: Settings, environment: Mapping[str, str] | None = None) -> Path:
    """Return the journal's directory: as set, else systemd's StateDirectory, else the user's.

    Raises ConfigError if it would be in an unknown home directory.
    """
    environment = os.environ if environment is None else environment
    if settings.state.directory:
        return _expanded(settings.state.directory, "state.directory")
    if given := environment.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = environment.get("XDG_STATE_HOME", "")
    if not Path(base).is_absolute():  # the XDG specification says to ignore it then
        base = "~/.local/state"
    return _expanded(base, "state.directory") / "relayd"


def control_socket(
    settings: Settings, name: str, environment: Mapping[str, str] | None = None
) -> Path:
    """Return the control socket's path: as set, else that of `relayd.config.socket_folders`.

    Raises ConfigError if it would be in an unknown home directory.
    """
    if settings.control.socket:
        return _expanded(settings.control.socket, "control.socket")
    environment = os.environ if environment is None else environment
    return default_socket(name, environment, os.geteuid())


def _expanded(path: str, key: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as fault:
        why = f"{key}: {path!r} is in a home directory that is not known"
        raise ConfigError([f"{why}; set {key} to an absolute path"]) from fault
