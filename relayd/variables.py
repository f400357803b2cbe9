"""Settings from the environment: `RELAYD_SECTION__KEY`, and what to think of other RELAYD_ names.

A name that was probably meant for us is an error that names the right one. Any other is somebody
else's: for a Service named relayd, Kubernetes puts RELAYD_PORT, RELAYD_SERVICE_HOST and the like
into the environment of each container. Such names are ignored. An empty variable counts as unset.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_settings import EnvSettingsSource

from relayd.config import ENV_PREFIX, CameraSettings, Settings, StreamSettings

SEPARATOR = "__"
_KUBERNETES = re.compile(
    r"(?:\w+_)?(?:service_host|service_port(?:_\w+)?"
    r"|port(?:_\d+_(?:tcp|udp|sctp)(?:_(?:proto|port|addr))?)?)",
)
"""What Kubernetes and Docker's links append to the name of a service."""
_LIKE_A_KEY = 0.5
"""Likeness (difflib, 0 to 1) of a word after a section's name with one of its keys."""
_LIKE_A_NAME = 0.8
"""Likeness of a whole name with one of ours."""


def read(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Give the settings that the environment holds, as a tree, and its faults, a line each."""
    ours = _ours(environment)
    faults = []
    for name in ours:
        if not _is_known(name) and (SEPARATOR in name or _meant(name)):
            hint = f"did you mean {meant}?" if (meant := _meant(name)) else _known_sections()
            faults.append(f"{ENV_PREFIX}{name.upper()} (environment): unknown; {hint}")
    source = EnvSettingsSource(Settings, env_prefix=ENV_PREFIX, env_nested_delimiter=SEPARATOR)
    source.env_vars = {
        f"{ENV_PREFIX}{name}".lower(): value for name, value in ours.items() if _is_known(name)
    }
    try:
        return source(), faults
    except RecursionError:
        return {}, [*faults, f"{ENV_PREFIX}… (environment): a value is nested too deeply"]
    except ValueError as fault:
        return {}, [*faults, f"{ENV_PREFIX}… (environment): {fault}"]


def ignored(environment: Mapping[str, str]) -> list[str]:
    """Name the RELAYD_ variables that are none of ours, sorted."""
    return sorted(
        f"{ENV_PREFIX}{name.upper()}"
        for name in _ours(environment)
        if not _is_known(name) and SEPARATOR not in name and not _meant(name)
    )


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables with our prefix, by the rest of their names in lower case."""
    return {
        name[len(ENV_PREFIX) :].lower(): value
        for name, value in environment.items()
        if name.upper().startswith(ENV_PREFIX) and value
    }


def _is_known(name: str) -> bool:
    return name.split(SEPARATOR, maxsplit=1)[0] in Settings.model_fields


def _meant(name: str) -> str:
    """Give the variable of ours that this name was probably meant to be; empty where none."""
    if _KUBERNETES.fullmatch(name):
        return ""
    section, separator, rest = name.partition(SEPARATOR)
    if separator:
        close = difflib.get_close_matches(section, Settings.model_fields, 1)
        return _variable(close[0], rest) if close else ""
    for section in Settings.model_fields:
        if name.startswith(f"{section}_"):
            word = name[len(section) + 1 :]
            close = difflib.get_close_matches(word, _keys(section), 1, _LIKE_A_KEY)
            return _variable(section, close[0]) if close else ""
    names = dict(_names())
    close = difflib.get_close_matches(name, names, 1, _LIKE_A_NAME)
    return names[close[0]] if close else ""


def _names() -> Iterator[tuple[str, str]]:
    """Give what each variable may be taken for, and its name."""
    for section in Settings.model_fields:
        for key in _keys(section):
            yield key, _variable(section, key)
    for section in Settings.model_fields:
        yield section, _variable(section, "")
        for key in _keys(section):
            yield f"{section}_{key}", _variable(section, key)


def _variable(section: str, key: str) -> str:
    """Name the variable of a key; an array of tables has one variable for the whole."""
    if section == "output":
        return f"{ENV_PREFIX}OUTPUT"
    return f"{ENV_PREFIX}{section}{SEPARATOR}{key or '…'}".upper()


def _keys(section: str) -> list[str]:
    model = Settings.model_fields[section].annotation
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return [*CameraSettings.model_fields, *StreamSettings.model_fields]


def _known_sections() -> str:
    return f"known here: {', '.join(Settings.model_fields)}"
