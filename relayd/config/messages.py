"""Error messages for settings: key, value, what to write instead, and its origin."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from relayd.config.settings import CameraSettings, MicrophoneSettings, Settings, StreamSettings
from relayd.config.tree import SettingsTree
from relayd.logs import excerpt, redact
from relayd.urls.concealed import HIDDEN
from relayd.urls.quoting import dotted, plain_name, quoted, quoted_place
from relayd.urls.safe import MediaUrl

_LONGEST_VALUE = 120
"""Characters of a value that are shown."""
_OUTPUT_KINDS = 'kind = "camera", kind = "stream" or kind = "microphone"'
_KINDS = (["camera"], ["stream"], ["microphone"])
_WHOLE_NUMBER = "must be a whole number, like 640"
_NUMBER = "must be a number without a unit, like 2.5"
_TEXT = "must be text in quotes"
_TABLES = frozenset({"model_type", "model_attributes_type", "dict_type", "mapping_type"})

_TEXTS: Mapping[str, str] = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "is too large a number",
    "int_type": _WHOLE_NUMBER,
    "tuple_type": 'must be a list, like ["one", "two"]',
    "string_sub_type": _TEXT,
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length:g} characters",
    "string_type": _TEXT,
    "string_unicode": "has bytes that are not UTF-8 text",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than_equal": "must be {le:g} or less",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "literal_error": "must be {expected}",
}
"""By pydantic's error type; numbers and choices come from its context."""


def fault_line(detail: ErrorDetails, tree: SettingsTree) -> str:
    """Describe one fault in one line."""
    location = list(detail["loc"])
    if location[:1] == ["output"] and location[2:3] in _KINDS:
        del location[2]  # pydantic's tag of the union, not a key
    where = tree.origin(location)
    # The key itself may be a URL, written in the wrong place.
    return redact(f"{_fault(detail, location)}{f' ({where})' if where else ''}")


def _fault(detail: ErrorDetails, location: list[int | str]) -> str:
    key = dotted(location)
    value = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return _unknown(key, location, value)
        case "union_tag_not_found":
            return f"{key}.kind: missing; write {_OUTPUT_KINDS}"
        case "union_tag_invalid":
            kind = value.get("kind") if isinstance(value, Mapping) else value
            shown_kind = _shown([*location, "kind"], kind)
            return f"{key}.kind = {shown_kind}: no such kind; write {_OUTPUT_KINDS}"
        case "missing":
            return f"{key}: missing; give a value"
        case "list_type" if location == ["output"]:
            return f"{key}: each output is a table of its own; write [[output]] and {_OUTPUT_KINDS}"
        case _:
            return f"{key} = {_shown(location, value)}: {_what_to_write(detail, location)}"


def _what_to_write(detail: ErrorDetails, location: list[int | str]) -> str:
    kind = detail["type"]
    if kind in _TABLES:
        table = ".".join(str(part) for part in location if isinstance(part, str))
        header = "[[output]]" if location[0] == "output" else f"[{table}]"
        return f"must be a table; write {header} on a line, and its keys below"
    if kind in _TEXTS:
        return _TEXTS[kind].format(**detail.get("ctx", {}))
    message = detail["msg"].removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}"


def _shown(location: Sequence[object], value: object) -> str:
    """Show a key's value unless it may be a secret; of a table or list only its kind."""
    while isinstance(location[-1], int):  # an item is treated like its list
        location = location[:-1]
    is_option = list(location[:2]) == ["source", "options"]
    field = (
        None if len(location) == 1 or is_option else _siblings(location[:-1]).get(str(location[-1]))
    )
    if is_option or (field is not None and field.annotation is SecretStr):
        return HIDDEN
    if isinstance(value, str):
        # Text in place of a table may be a URL.
        return HIDDEN if field is None else excerpt(_quoted(value, field), _LONGEST_VALUE)
    if isinstance(value, Mapping | list | tuple):
        return "{…}" if isinstance(value, Mapping) else "[…]"
    return _plain(value)


def _plain(value: object) -> str:
    """Format a number, date or boolean as in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return value.isoformat()
    try:
        return excerpt(repr(value), _LONGEST_VALUE)
    except ValueError:  # an integer with more digits than Python formats
        return "a huge number"


def _quoted(value: str, field: FieldInfo) -> str:
    is_place = field.annotation is MediaUrl
    return quoted_place(value) if is_place else quoted(value)


def _unknown(key: str, location: list[int | str], value: object) -> str:
    word, siblings = str(location[-1]), _siblings(location[:-1])
    is_table = len(location) == 1 and isinstance(value, Mapping)
    name = f"[{key}]" if is_table else key
    for known in siblings:
        if known.lower() == word.lower():
            right = dotted([*location[:-1], known])
            write = f"[{right}]" if is_table else right
            return f"{name}: names are case-sensitive; write {write}"
    return f"{name}: unknown {'table' if is_table else 'key'}; {_nearest(word, siblings, location)}"


def _siblings(location: Sequence[object]) -> Mapping[str, Any]:
    """Return the keys of the table at `location`."""
    model: Any = Settings
    if location and location[0] == "output":
        kinds = CameraSettings, StreamSettings, MicrophoneSettings
        return {name: field for kind in kinds for name, field in kind.model_fields.items()}
    for part in location:
        field = getattr(model, "model_fields", {}).get(str(part))
        model = field.annotation if field else None
    fields: Mapping[str, Any] = getattr(model, "model_fields", {})
    return fields


def _nearest(word: str, known: Mapping[str, Any], location: Sequence[object]) -> str:
    """Suggest a similar key of the same table, else of all tables."""
    prefix = "".join(f"{plain_name(part)}." for part in location[:-1] if isinstance(part, str))
    if close := difflib.get_close_matches(word.lower(), known, 1):
        return f"did you mean {prefix}{close[0]}?"
    for section, keys in _tables():
        if word.lower() in keys:
            return f"did you mean {section}.{word.lower()}?"
    return f"known here: {', '.join(known)}"


def _tables() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield section, model.model_fields
