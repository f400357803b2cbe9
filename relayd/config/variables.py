"""Settings from the environment: `RELAYD_SECTION__KEY`, and the handling of other RELAYD_ names.

A name that was probably meant for relayd is an error that suggests the right one. Others are
ignored: for a Service named relayd, Kubernetes puts RELAYD_PORT, RELAYD_SERVICE_HOST and the like
into the environment of each container. An empty variable counts as unset.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from json import JSONDecodeError
from typing import Any, get_origin

from pydantic import BaseModel

from relayd.config.settings import ENV_PREFIX, CameraSettings, Settings, StreamSettings
from relayd.config.tree import SettingsTree
from relayd.urls.quoting import plain_name

SEPARATOR = "__"
_OUTPUT_DEPTH = 2
"""Path length of a whole output: `output`, and its number."""
_KEY_DEPTH = 2
"""Path length of a key: its section, and its name."""
_KUBERNETES = re.compile(
    r"(?:\w+_)?(?:service_host|service_port(?:_\w+)?"
    r"|port(?:_\d+_(?:tcp|udp|sctp)(?:_(?:proto|port|addr))?)?)",
)
"""Suffixes that Kubernetes and Docker links append to the name of a service."""
_LONGEST_NUMBER = 10
"""Digits of an output's number; real ones are far shorter."""
_LIKE_A_KEY = 0.5
"""Similarity (difflib, 0 to 1) of the text after a section's name with one of its keys."""
_LIKE_A_NAME = 0.8
"""Similarity of a whole name with one of ours."""


def read(environment: Mapping[str, str], tree: SettingsTree) -> list[str]:
    """Add the settings of the environment to the tree; returns the faults, one line each."""
    faults = []
    for name, (spelling, value) in sorted(_ours(environment).items(), key=_in_order):
        shown_name = _shown(spelling)
        variable = f"{shown_name} (environment)"
        if not _is_known(name):
            if SEPARATOR in name or _meant(name):
                hint = f"did you mean {meant}?" if (meant := _meant(name)) else _known_sections()
                faults.append(f"{variable}: unknown; {hint}")
            continue
        path = name.split(SEPARATOR)
        if not all(path):
            faults.append(f"{variable}: a name is missing; write {_variable(path[0], 'KEY')}")
            continue
        try:
            tree.put(path, _value(path, value), f"{shown_name} in the environment")
        except (ValueError, RecursionError) as fault:
            faults.append(f"{variable}: {fault}")
    return faults


def _value(path: Sequence[str], text: str) -> Any:
    """Parse a variable: JSON for a table or list, otherwise plain text.

    Raises ValueError that says what to write.
    """
    if not _is_table(path):
        return text
    if _is_list(path):
        example = """'["one", "two"]'"""
    elif path[0] == "output":
        example = """'[{"kind": "camera"}]', or RELAYD_OUTPUT__0__KIND and so on"""
    else:
        names = [*path, "KEY"]
        example = f"""'{{"key": "value"}}', or {ENV_PREFIX}{SEPARATOR.join(names).upper()}"""
    try:
        value = json.loads(text)
    except ValueError as fault:
        why = f"column {fault.pos + 1}" if isinstance(fault, JSONDecodeError) else "a huge number"
        raise ValueError(f"not JSON ({why}); give {example}") from fault
    except RecursionError as fault:
        raise ValueError(f"nested too deeply; give {example}") from fault
    if not isinstance(value, dict | list):
        raise ValueError(f"not a JSON object or list; give {example}")  # noqa: TRY004 - the text is wrong
    return value


def _is_table(path: Sequence[str]) -> bool:
    """Whether the path names a table or a list rather than one value."""
    return (
        len(path) == 1
        or _is_list(path)
        or tuple(path) == ("source", "options")
        or (path[0] == "output" and len(path) == _OUTPUT_DEPTH)
    )


def _is_list(path: Sequence[str]) -> bool:
    """Whether the path names a key whose value is a list of texts."""
    model = Settings.model_fields[path[0]].annotation
    if len(path) == 1 or not isinstance(model, type) or not issubclass(model, BaseModel):
        return False
    field = model.model_fields.get(path[1])
    return len(path) == _KEY_DEPTH and field is not None and get_origin(field.annotation) is tuple


def ignored(environment: Mapping[str, str]) -> list[str]:
    """Return the RELAYD_ variables that are not settings, sorted."""
    return sorted(
        f"{ENV_PREFIX}{name.upper()}"
        for name in _ours(environment)
        if not _is_known(name) and SEPARATOR not in name and not _meant(name)
    )


def _ours(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the variables with our prefix, by the rest of their names in lower case.

    The values are the original name and text; of two names that differ only in case, the one in
    capitals is used.
    """
    return {
        name[len(ENV_PREFIX) :].lower(): (name, value)
        for name, value in sorted(environment.items(), reverse=True)
        if name.upper().startswith(ENV_PREFIX) and value.strip()
    }


def _in_order(found: tuple[str, object]) -> list[tuple[int, str]]:
    """Sort key that orders outputs by number, so that 10 comes after 9."""
    parts = found[0].split(SEPARATOR)
    return [(int(part), "") if _is_number(part) else (-1, part) for part in parts]


def _shown(name: str) -> str:
    """Return a variable's name, without parts that may be a pasted secret."""
    parts = name[len(ENV_PREFIX) :].split(SEPARATOR)
    return name[: len(ENV_PREFIX)] + SEPARATOR.join(map(plain_name, parts))


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) < _LONGEST_NUMBER


def _is_known(name: str) -> bool:
    return name.split(SEPARATOR, maxsplit=1)[0] in Settings.model_fields


def _meant(name: str) -> str:
    """Return the variable that this name was probably meant to be, or an empty text."""
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
    """Yield likely misspellings of each variable, with its right name."""
    for section in Settings.model_fields:
        for key in _keys(section):
            yield key, _variable(section, key)
    for section in Settings.model_fields:
        yield section, _variable(section, "")
        for key in _keys(section):
            yield f"{section}_{key}", _variable(section, key)


def _variable(section: str, key: str) -> str:
    """Return the variable of a key; for an array of tables, of its first one."""
    if section == "output":
        section = f"{section}{SEPARATOR}0"
    return f"{ENV_PREFIX}{section}{SEPARATOR}{key or '…'}".upper()


def _keys(section: str) -> list[str]:
    model = Settings.model_fields[section].annotation
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return [*CameraSettings.model_fields, *StreamSettings.model_fields]


def _known_sections() -> str:
    return f"known here: {', '.join(Settings.model_fields)}"
