"""Reading settings: a TOML file, then `RELAYD_SECTION__KEY`, then `--set section.key=value`.

Secrets may also come from `AKOOL_API_KEY` or from systemd credentials, so that the file
holds none. Whatever is wrong is told at once, one line a fault, with key, value and mend.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from relayd import variables
from relayd.concealed import HIDDEN
from relayd.config import CameraSettings, Settings, StreamSettings
from relayd.errors import ConfigError
from relayd.logs import conceal, excerpt
from relayd.urls import MediaUrl, is_secret_name, shown

SYSTEM_CONFIGURATION = Path("/etc/relayd")
SYSTEM_STATE = Path("/var/lib/relayd")
"""What the service relayd@NAME has: /etc/relayd/NAME.toml and the journal in NAME below this."""
TOML_FAULTS = (ValueError, RecursionError)
"""What tomllib raises: its TOMLDecodeError is a ValueError, and numbers raise others of that kind.
"""
_LIKE_A_KEY = re.compile(r"[a-z_.]{0,40}")
_LONGEST_VALUE = 120
"""Characters of a value, or of TOML's own words, that a fault repeats."""
_CREDENTIAL_FILES = {
    "akool-api-key": ("akool", "api_key"),
    "akool-client-id": ("akool", "client_id"),
    "akool-client-secret": ("akool", "client_secret"),
    "control-token": ("control", "token"),
}
_NOT_ON_A_COMMAND_LINE = {
    key: "a command line can be read by every user of this machine;"
    f" set {variable}, the systemd credential {file}, or {key.split('.')[1]} in the file"
    for key, variable, file in (
        ("akool.api_key", "AKOOL_API_KEY", "akool-api-key"),
        ("akool.client_secret", "RELAYD_AKOOL__CLIENT_SECRET", "akool-client-secret"),
        ("control.token", "RELAYD_CONTROL__TOKEN", "control-token"),
    )
}


def load(
    path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings of a relay.

    `path` is the TOML file (None: defaults only), `overrides` are `section.key=value` texts.
    Raises ConfigError with one line a fault.
    """
    environment = os.environ if environment is None else environment
    tree = _read_file(path) if path else {}
    from_environment, faults = variables.read(environment)
    _deep_update(tree, from_environment)
    faults += _merge_overrides(tree, overrides)
    faults += _fill_credentials(tree, environment)
    if path and "STATE_DIRECTORY" not in environment:
        _fill_state(tree, path)
    try:
        settings = load_tree(tree)
    except ConfigError as report:
        faults += report.faults
    if faults:
        raise ConfigError(faults)
    return settings


def load_tree(tree: Mapping[str, Any]) -> Settings:
    """Read settings that a program made; ConfigError as `load`."""
    try:
        settings = Settings(**tree)
    except ValidationError as report:
        # Not as its cause: its own words would repeat the values.
        raise ConfigError([_sentence(detail) for detail in report.errors()]) from None
    _conceal_secrets(settings)
    return settings


def _read_file(path: Path) -> dict[str, Any]:
    mend = "give the path of a TOML file"
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}; {mend}"]) from fault
    except UnicodeDecodeError as fault:
        raise ConfigError([f"{path}: not UTF-8 text; {mend}"]) from fault
    except TOML_FAULTS as fault:
        raise ConfigError([f"{path}: not valid TOML: {_toml_fault(fault)}"]) from fault


def _merge_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    faults = []
    for text in overrides:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            named = key.strip() if _LIKE_A_KEY.fullmatch(key.strip()) else "…"
            faults.append(f"--set {named}: give section.key=value, like --set video.fit=pad")
            continue
        try:
            inner: Any = _toml_value(value.strip())
        except TOML_FAULTS as fault:
            faults.append(f"--set {key.strip()}: not a TOML value: {_toml_fault(fault)}")
            continue
        for part in reversed(path):
            inner = {part: inner}
        if secret := _secret_of(inner):
            faults.append(f"--set {secret}: {_NOT_ON_A_COMMAND_LINE[secret]}")
            continue
        _deep_update(tree, inner)
    return faults


def _toml_fault(fault: Exception) -> str:
    if isinstance(fault, tomllib.TOMLDecodeError):
        return excerpt(str(fault), _LONGEST_VALUE)
    if isinstance(fault, RecursionError):
        return "nested too deeply; use fewer brackets"
    return "a number has too many digits, or a date does not exist; write a shorter or real one"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fill_credentials(tree: dict[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    akool = tree.setdefault("akool", {})
    if isinstance(akool, dict) and (key := environment.get("AKOOL_API_KEY")):
        akool["api_key"] = akool.get("api_key") or key
    folder = environment.get("CREDENTIALS_DIRECTORY")
    for name, (section, field) in _CREDENTIAL_FILES.items() if folder else ():
        file = Path(str(folder)) / name
        table = tree.setdefault(section, {})
        if not isinstance(table, dict) or table.get(field):
            continue
        try:
            table[field] = file.read_text("utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else "not UTF-8 text"
            yield f"{file} (systemd credential): {why}; give a file with the secret alone"


def _fill_state(tree: dict[str, Any], path: Path) -> None:
    """Find the journal of a system's relay for whoever asks about it in a terminal."""
    state = tree.setdefault("state", {})
    own = SYSTEM_STATE / path.stem
    is_system = path.absolute().parent == SYSTEM_CONFIGURATION and own.is_dir()
    if is_system and isinstance(state, dict) and not state.get("directory"):
        state["directory"] = str(own)


def _deep_update(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _deep_update(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def _sentence(detail: ErrorDetails) -> str:
    """One fault as a line: key, value, what to do."""
    location = [part for part in detail["loc"] if part not in {"camera", "stream"}]
    key = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        return (
            f"{key}: unknown key{_nearest(str(location[-1]), _siblings(location[:-1]), location)}"
        )
    if detail["type"] == "missing":
        return f"{key}: missing; give a value"
    message = detail["msg"].removeprefix("Value error, ")
    shown = _shown(location, detail["input"])
    return f"{key} = {shown}: {message[0].lower()}{message[1:]}"


def _shown(location: Sequence[object], value: object) -> str:
    """Say what a key was given, where that can be no secret; a table or list by its kind alone."""
    while isinstance(location[-1], int):  # an item of a list is shown as the list's key allows
        location = location[:-1]
    is_option = location[:2] == ["source", "options"]
    field = (
        None if len(location) == 1 or is_option else _siblings(location[:-1]).get(str(location[-1]))
    )
    if is_option or (field is not None and field.annotation is SecretStr):
        return HIDDEN
    if isinstance(value, str):
        if field is None:  # a table was given as text, maybe a URL
            return HIDDEN
        return excerpt(repr(shown(value)), _LONGEST_VALUE)
    return _kind_of(value)


def _kind_of(value: object) -> str:
    if isinstance(value, Mapping):
        return "{…}"
    if isinstance(value, list | tuple):
        return "[…]"
    return excerpt(repr(value), _LONGEST_VALUE)


def _secret_of(tree: Mapping[str, Any]) -> str | None:
    """Name the first key in a tree of settings that holds a secret; None where none does."""
    for dotted in _NOT_ON_A_COMMAND_LINE:
        section, key = dotted.split(".")
        table = tree.get(section)
        if isinstance(table, Mapping) and table.get(key):
            return dotted
    return None


def _conceal_secrets(settings: Settings) -> None:
    """Keep every secret of the configuration out of what this process says, for good."""
    tables = [getattr(settings, name) for name in Settings.model_fields]
    for table in (*(one for one in tables if isinstance(one, BaseModel)), *settings.output):
        for _, value in table:
            if isinstance(value, SecretStr):
                conceal(value.get_secret_value(), lasting=True)
            elif isinstance(value, MediaUrl):
                value.conceal(lasting=True)
    for name, value in settings.source.options.items():
        if is_secret_name(name):
            conceal(value, lasting=True)


def _siblings(location: Sequence[object]) -> Mapping[str, Any]:
    model: Any = Settings
    if location and location[0] == "output":
        return {**CameraSettings.model_fields, **StreamSettings.model_fields}
    for part in location:
        model = model.model_fields[str(part)].annotation
    fields: Mapping[str, Any] = model.model_fields
    return fields


def _nearest(word: str, known: Mapping[str, Any], location: Sequence[object] = ()) -> str:
    """`; did you mean …?` over the keys of the same table, then of all tables."""
    prefix = "".join(f"{part}." for part in location[:-1] if isinstance(part, str))
    if close := difflib.get_close_matches(word, known, 1):
        return f"; did you mean {prefix}{close[0]}?"
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel) and word in model.model_fields:
            return f"; did you mean {section}.{word}?"
    return f"; known here: {', '.join(known)}"
