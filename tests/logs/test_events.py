"""Log events: one list of names, used by every line of the log and shown in the documentation."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from relayd.logs import LogEvent
from relayd.output.base import OutputChange
from relayd.rtc.link import LinkEventKind

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "relayd" / "logs" / "events.py"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def log_calls() -> Iterator[tuple[str, ast.expr]]:
    """Where something is logged, and the first argument of each such call."""
    for path in (ROOT / "relayd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            logger = ast.unparse(node.func.value)
            is_logger = logger.split("(")[0].split(".")[-1] in {"_log", "log", "get"}
            if is_logger and node.func.attr in LEVELS:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]


def meanings() -> dict[str, str]:
    """Each event with the sentence that stands below it."""
    (body,) = [
        node.body for node in ast.parse(EVENTS.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    told: dict[str, str] = {}
    for member, below in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(below, ast.Expr):
            told[ast.literal_eval(member.value)] = ast.literal_eval(below.value)
    return told


def test_every_log_line_takes_its_name_from_the_list() -> None:
    calls = list(log_calls())
    assert len(calls) > 90
    named = ("LogEvent", "event")  # a variable is a LogEvent by its type
    others = [place for place, name in calls if not ast.unparse(name).startswith(named)]
    assert not others


def test_every_name_is_an_area_and_what_happened_there() -> None:
    assert not [event for event in LogEvent if not re.fullmatch(r"[a-z_]+\.[a-z_]+", event)]


def test_every_name_is_used_and_explained() -> None:
    sources = [path.read_text() for path in (ROOT / "relayd").rglob("*.py")]
    used = set(re.findall(r"\bLogEvent\.([A-Z0-9_]+)", "\n".join(sources)))
    made = {f"link.{kind.value}" for kind in LinkEventKind}
    made |= {f"output.{change.value}" for change in OutputChange}
    assert made <= set(LogEvent)
    assert {event.name for event in LogEvent if event not in made} <= used
    assert set(meanings()) == set(LogEvent)


def test_the_documentation_lists_every_event() -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", page, re.MULTILINE)
    assert dict(rows) == meanings()
