"""relayd(1) names what there is, and nothing else."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from relayd.commands.app import app
from relayd.errors import ExitCode

MANUAL = Path(__file__).parents[2] / "config/man/relayd.1"


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Return each command that people call, by its full name."""
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, *path, name)
    if not hasattr(command, "commands") and not command.hidden:
        yield " ".join(path), command


def items(heading: str) -> list[str]:
    """Return the heads of a section's list."""
    section = re.search(rf"(?ms)^\.Sh {heading}$(.*?)(?=^\.Sh )", MANUAL.read_text())
    assert section
    return re.findall(r"(?m)^\.It (.*)$", section[1])


def test_each_command_is_named_with_its_options_that_it_has() -> None:
    there = dict(commands(typer.main.get_command(app)))
    named: dict[str, set[str]] = {}
    for head in items("COMMANDS"):
        words = head.removeprefix("Ic ")
        name = re.split(r" (?:Oo|Op|Ar|Fl)\b", words)[0]
        named[name] = {"-" + option for option in re.findall(r"Fl (\S+)", words)}
    assert set(named) == set(there)
    for name, options in named.items():
        known = {word for option in there[name].params for word in option.opts}
        assert options <= known, name


def test_each_exit_code_is_named() -> None:
    assert sorted(map(int, items("EXIT STATUS"))) == sorted(ExitCode)


@pytest.mark.skipif(shutil.which("man") is None, reason="no man to check it with")
def test_man_finds_no_fault_with_it() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-l", MANUAL],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "RELAYD(1)" in done.stdout
