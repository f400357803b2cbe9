"""Reads settings: a TOML file, then `RELAYD_SECTION__KEY`, then `--set section.key=value`.

Secrets may also come from `AKOOL_API_KEY` or from systemd credentials, so that the file
holds none. All faults are reported together, one per line, with key, value and hint.
"""

import codecs
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from relayd.config import variables
from relayd.config.messages import fault_line
from relayd.config.settings import Settings
from relayd.config.tree import SettingsTree, leaves
from relayd.errors import ConfigError
from relayd.logs import conceal, excerpt
from relayd.process.descriptors import wait_readable
from relayd.urls.quoting import dotted, plain_names_in
from relayd.urls.safe import MediaUrl, is_secret_name, shown

SYSTEM_CONFIGURATION = Path("/etc/relayd")
SYSTEM_STATE = Path("/var/lib/relayd")
"""The service relayd@NAME has its file in /etc/relayd/NAME.toml, and its journal in NAME here."""
TOML_FAULTS = (ValueError, RecursionError)
"""What tomllib raises: TOMLDecodeError is a ValueError; some numbers raise other ValueErrors."""
LARGEST_FILE = 1024 * 1024
"""Bytes; the commented example has about 7 kB."""
PIPE_TIMEOUT = 5.0
"""s for the next bytes of a pipe: `-c <(command)`, or a FIFO without a writer."""
_LONGEST_VALUE = 120
"""Characters of a value, or of TOML's error text, that a fault repeats."""
_CREDENTIAL_FILES = {
    "akool-api-key": ("akool", "api_key"),
    "akool-client-id": ("akool", "client_id"),
    "akool-client-secret": ("akool", "client_secret"),
    "control-token": ("control", "token"),
}
_READ_BY_ALL = "a command line can be read by every user of this machine"
_NOT_ON_A_COMMAND_LINE = {
    key: f"set {variable}, the systemd credential {file}, or {key.split('.')[1]} in the file"
    for key, variable, file in (
        ("akool.api_key", "AKOOL_API_KEY", "akool-api-key"),
        ("akool.client_secret", "RELAYD_AKOOL__CLIENT_SECRET", "akool-client-secret"),
        ("control.token", "RELAYD_CONTROL__TOKEN", "control-token"),
    )
}
_OPTIONS = "source.options"
_SECRET_OPTION = re.compile(r"pass|pwd|token|secret|credential|cookie|streamid")
"""Names of FFmpeg's options that hold a secret."""
_OPTION_FIX = "write it in the file, or set RELAYD_SOURCE__OPTIONS to a JSON object"


def load(
    path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings of a relay.

    `path` is the TOML file (None: defaults only), `overrides` are `section.key=value` texts.
    Raises ConfigError with one line per fault.
    """
    environment = os.environ if environment is None else environment
    tree = SettingsTree()
    if path:
        _read_file(tree, path)
    faults = variables.read(environment, tree)
    faults += _merge_overrides(tree, overrides)
    faults += _fill_credentials(tree, environment)
    if path and "STATE_DIRECTORY" not in environment:
        _fill_state(tree, path)
    try:
        settings = _validate(tree)
    except ConfigError as report:
        faults += report.faults
    if faults:
        raise ConfigError(faults)
    return settings


def load_tree(values: Mapping[str, Any]) -> Settings:
    """Read settings from a dict; raises ConfigError as `load`."""
    tree = SettingsTree()
    tree.values = dict(values)
    return _validate(tree)


def _validate(tree: SettingsTree) -> Settings:
    try:
        settings = Settings.model_validate(tree.values)
    except ValidationError as report:
        details = report.errors(include_url=False)
        # Not as its cause: its text would repeat the values.
        raise ConfigError([fault_line(detail, tree) for detail in details]) from None
    _conceal_secrets(settings)
    return settings


def _read_file(tree: SettingsTree, path: Path) -> None:
    fix = "give the path of a TOML file"
    try:
        content = _content(path)
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the path
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise ConfigError([f"{shown(str(path))}: {why}; {fix}"]) from fault
    if len(content) > LARGEST_FILE:
        raise ConfigError([f"{path}: larger than {LARGEST_FILE // 1024} KiB; {fix}"])
    text = _decoded(content, path)
    try:
        tree.read_toml(tomllib.loads(text), text, path.name)
    except TOML_FAULTS as fault:
        raise ConfigError([f"{path}: not valid TOML: {_toml_fault(fault)}"]) from fault


def _content(path: Path) -> bytes:
    """Read a file or pipe, at most one byte more than LARGEST_FILE.

    Raises OSError, and ConfigError for a pipe without a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        content = bytearray()
        while len(content) <= LARGEST_FILE:
            if not wait_readable((descriptor,), PIPE_TIMEOUT):
                break
            if not (piece := os.read(descriptor, LARGEST_FILE + 1 - len(content))):
                if content or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                    return bytes(content)
                break
            content += piece
        else:
            return bytes(content)
    finally:
        os.close(descriptor)
    why = "this pipe is empty, or nobody writes it to its end"
    raise ConfigError([f"{path}: {why}; give the path of a TOML file"])


def _decoded(content: bytes, path: Path) -> str:
    """Decode a file's text without the byte order mark that Windows editors add."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError([f"{path}: not UTF-8 text but UTF-16; save it as UTF-8"])
    if b"\0" in content:
        raise ConfigError([f"{path}: not UTF-8 text: NUL bytes are in it; save it as UTF-8"])
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise ConfigError([f"{path}: line {line} is not UTF-8 text; save it as UTF-8"]) from fault


def _merge_overrides(tree: SettingsTree, overrides: Sequence[str]) -> list[str]:
    faults = []
    for text in overrides:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            faults.append(f"--set {dotted(path)}: give section.key=value, like --set video.fit=pad")
            continue
        path = [_unquoted(part) for part in path]
        name = f"--set {dotted(path)}"
        try:
            read = _toml_value(value.strip())
        except TOML_FAULTS as fault:
            faults.append(f"{name}: not a TOML value: {_toml_fault(fault)}")
            continue
        if secret := _secret_of(path, read):
            fix = _NOT_ON_A_COMMAND_LINE.get(secret, _OPTION_FIX)
            faults.append(f"--set {secret}: {_READ_BY_ALL}; {fix}")
            continue
        try:
            tree.put(path, read, name)
        except ValueError as fault:
            faults.append(f"{name}: {fault}")
    return faults


def _toml_fault(fault: Exception) -> str:
    if isinstance(fault, tomllib.TOMLDecodeError):
        return excerpt(plain_names_in(str(fault)), _LONGEST_VALUE)
    if isinstance(fault, RecursionError):
        return "nested too deeply; use fewer brackets"
    return "a number has too many digits, or a date does not exist; write a shorter or real one"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fill_credentials(tree: SettingsTree, environment: Mapping[str, str]) -> Iterator[str]:
    akool = tree.values.setdefault("akool", {})
    key = environment.get("AKOOL_API_KEY")
    if key and isinstance(akool, dict) and not akool.get("api_key"):
        tree.put(("akool", "api_key"), key, "AKOOL_API_KEY in the environment")
    folder = environment.get("CREDENTIALS_DIRECTORY")
    for name, (section, field) in _CREDENTIAL_FILES.items() if folder else ():
        file = Path(str(folder)) / name
        table = tree.values.setdefault(section, {})
        if not isinstance(table, dict) or table.get(field):
            continue
        try:
            content = file.read_text("utf-8-sig").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else "not UTF-8 text"
            place = excerpt(str(file), _LONGEST_VALUE)
            yield f"{place} (systemd credential): {why}; give a file with the secret alone"
        else:
            tree.put((section, field), content, f"{file} (systemd credential)")


def _fill_state(tree: SettingsTree, path: Path) -> None:
    """Find the journal of a system service's relay for commands in a terminal."""
    state = tree.values.setdefault("state", {})
    own = SYSTEM_STATE / path.stem
    is_system = path.absolute().parent == SYSTEM_CONFIGURATION and own.is_dir()
    if is_system and isinstance(state, dict) and not state.get("directory"):
        tree.put(("state", "directory"), str(own), f"of the service relayd@{path.stem}")


def exposed(overrides: Sequence[str]) -> list[str]:
    """Return the names of the overrides that expose a secret within a URL to all local users."""
    names = []
    for text in overrides:
        key, _, value = text.partition("=")
        given = {key: None}
        with suppress(*TOML_FAULTS):
            given = {key: _toml_value(value.strip())}
        if any(isinstance(leaf, str) and MediaUrl(leaf).holds_secret for _, leaf in leaves(given)):
            names.append(dotted([_unquoted(part) for part in key.split(".")]))
    return names


def _unquoted(part: str) -> str:
    """Return a name without the quotes that TOML allows around it."""
    return part.strip().strip("\"'").strip()


def _secret_of(path: Sequence[str], value: object) -> str | None:
    """Return the first key in an override that holds a secret, or None.

    Misspelt names count, too: their secret has been exposed all the same.
    """
    given: object = value
    for part in reversed(path):
        given = {part: given}
    for names, leaf in leaves(given):
        if leaf in ("", {}, []):
            continue
        plain = [re.sub(r"[\s_-]", "", name).lower() for name in names]
        for key in _NOT_ON_A_COMMAND_LINE:
            section, field = (part.replace("_", "") for part in key.split("."))
            if plain[:2] == [section, field] or plain[-1] == field != "token":
                return key
        if plain[:2] == ["source", "options"] and _SECRET_OPTION.search(plain[-1]):
            return _OPTIONS
    return None


def _conceal_secrets(settings: Settings) -> None:
    """Redact every secret of the configuration in all output of this process, permanently."""
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
