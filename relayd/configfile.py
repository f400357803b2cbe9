"""Reading settings: a TOML file, then `RELAYD_SECTION__KEY`, then `--set section.key=value`.

Secrets may also come from `AKOOL_API_KEY` or from systemd credentials, so that the file
holds none. Whatever is wrong is told at once, one line a fault, with key, value and mend.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from relayd import variables
from relayd.config import CameraSettings, Settings, StreamSettings
from relayd.errors import ConfigError
from relayd.logs import redact

SYSTEM_CONFIGURATION = Path("/etc/relayd")
SYSTEM_STATE = Path("/var/lib/relayd")
"""What the service relayd@NAME has: /etc/relayd/NAME.toml and the journal in NAME below this."""
TOML_FAULTS = (ValueError, RecursionError)
"""What tomllib raises: its TOMLDecodeError is a ValueError, and numbers raise others of that kind.
"""
_CREDENTIAL_FILES = {
    "akool-api-key": ("akool", "api_key"),
    "akool-client-id": ("akool", "client_id"),
    "akool-client-secret": ("akool", "client_secret"),
    "control-token": ("control", "token"),
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
        return Settings(**tree)
    except ValidationError as report:
        raise ConfigError([_sentence(detail) for detail in report.errors()]) from report


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
            faults.append(f"--set {text}: give section.key=value, like --set video.fit=pad")
            continue
        try:
            inner = _toml_value(value.strip())
        except TOML_FAULTS as fault:
            faults.append(f"--set {key.strip()}: not a TOML value: {_toml_fault(fault)}")
            continue
        for part in reversed(path):
            inner = {part: inner}
        _deep_update(tree, inner)
    return faults


def _toml_fault(fault: Exception) -> str:
    if isinstance(fault, tomllib.TOMLDecodeError):
        return redact(str(fault))
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
    value = detail["input"]
    secret = any(word in key for word in ("key", "secret", "token")) or isinstance(value, SecretStr)
    shown = "***" if secret else redact(repr(value))[:120]
    if detail["type"] == "missing":
        return f"{key}: missing; give a value"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key} = {shown}: {message[0].lower()}{message[1:]}"


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
