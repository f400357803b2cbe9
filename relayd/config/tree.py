"""Settings as a tree while they are merged, with the origin of each value.

The file, the environment and `--set` write into one tree; later values win, tables are merged. A
path like ("output", "0", "url") names a value; numbers index the tables of an array.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relayd.urls.quoting import dotted, plain_name

Path = tuple[str, ...]

_ARRAYS = frozenset({"output"})
"""Arrays of tables; in all other tables a number is an ordinary key."""
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]\n]+?)\s*\]")
_ASSIGNMENT = re.compile(r"\s*([\w.\"'\- ]+?)\s*=")


class SettingsTree:
    """Values by table and key, and the origin of each as text."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._origins: dict[Path, str] = {}

    def read_toml(self, values: Mapping[str, Any], text: str, file: str) -> None:
        """Add the values of a TOML file; `text` is its source, for line numbers."""
        for path, value in _entries((), values):
            self._put(path, value)
            self._origins[path] = file
        for path, line in _lines(text).items():
            self._origins[path] = f"{file}, line {line}"

    def put(self, path: Sequence[str], value: Any, origin: str) -> None:
        """Set a value, or merge a table into the existing one.

        Raises ValueError if the path does not exist, with the reason.
        """
        for inner, leaf in _entries(tuple(path), value):
            replaced = self._value_around(inner)
            self._put(inner, leaf)
            self._forget(inner, replaced)
            self._origins[inner] = origin

    def origin(self, path: Sequence[object]) -> str:
        """Return the origin of the value at `path`, or of a table around it; empty if unknown."""
        names = tuple(map(str, path))
        for length in range(len(names), 0, -1):
            inside = (path for path in self._origins if path[:length] == names[:length])
            if (found := next(inside, None)) is not None:
                return self._origins.get(names[:length]) or self._origins[found]
        return ""

    def _value_around(self, path: Path) -> Path | None:
        """Return the path of a plain value that `path` would turn into a table, or None."""
        node: Any = self.values
        for length, part in enumerate(path[:-1], 1):
            if isinstance(node, list):
                is_there = _is_number(part) and len(part) <= len(str(len(node)))
                node = dict(enumerate(node)).get(int(part)) if is_there else None
            else:
                node = node.get(part)
            if not isinstance(node, dict | list):
                return None if node is None else path[:length]
        return None

    def _forget(self, path: Path, replaced: Path | None) -> None:
        """Drop the origins at and below `path`, and of the value that it `replaced`."""
        for other in list(self._origins):
            if other[: len(path)] == path or other == replaced:
                del self._origins[other]

    def _put(self, path: Path, value: Any) -> None:
        node: Any = self.values
        for number, part in enumerate(path):
            is_last = number == len(path) - 1
            if isinstance(node, list):
                node = _put_in_list(node, path[:number], part, is_last=is_last, value=value)
            elif is_last:
                node[part] = value
            else:
                if not isinstance(node.get(part), dict | list):
                    is_array = number == 0 and part in _ARRAYS and _is_number(path[1])
                    node[part] = [] if is_array else {}
                node = node[part]


def leaves(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield each value within tables and lists of tables, with its path."""
    return _entries((), value)


def _put_in_list(node: list[Any], path: Path, part: str, *, is_last: bool, value: Any) -> Any:
    """Set or return an element of an array: an existing one, or the next."""
    array = dotted(path)
    if not _is_number(part):
        raise ValueError(f"{array} is a list: say which one, like {array}.0.{plain_name(part)}")
    if len(part) > len(str(len(node))) or int(part) > len(node):
        raise ValueError(f"{array} has {len(node)}: the next one is {array}.{len(node)}")
    index = int(part)
    if index == len(node):
        node.append({})
    if is_last:
        node[index] = value
    elif not isinstance(node[index], dict | list):
        node[index] = {}
    return node[index]


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def _entries(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield each value that is not a table, with its path; an empty table counts as a value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _entries((*path, str(key)), inner)
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        yield path, []
        for number, item in enumerate(value):
            yield from _entries((*path, str(number)), item)
    else:
        yield path, {} if isinstance(value, Mapping) else value


def _lines(text: str) -> dict[Path, int]:
    """Return the line of each key and table header, as far as a line scan finds it."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _names(header[2])
            if header[1] == "[[":
                index = counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, str(index))
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault((*table, *_names(assignment[1])), number)
    return lines


def _names(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
