"""Words that were renamed stay gone: from names, messages, comments, help and documentation."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = (
    "relayd/**/*.py", "relayd/**/*.html", "docs/*.md", "config/**/*.toml", "config/man/*",
    "config/deb/*", "systemd/**/*", "README.md", "CONTRIBUTING.md", "SECURITY.md",
)  # fmt: skip
RENAMED = {
    r"mend(s|ed|ing)?": "hint, fix, repair",
    r"leftovers?|left over": "orphaned session",
    r"wishes|asks_for": "DesiredState, wants_session",
    r"rouse|unrest": "resume",
    r"hush|bury|buried|farewell|dismiss": "mute, reap, close, retire",
    r"heart|ear": "watchdog, reload task",
    r"sight|census": "ReaderCounter, DeviceUse, OpenTracker",
    r"screen|beats?|artist": "OutputClock, tick, renderer",
    r"verdicts": "error_codes",
    r"taming|tamed|admission": "import_guard, preflight",
    r"chores?": "upkeep",
    r"words_of|in_words": "describe",
    r"unforeseen|foresees?|befalls?": "unexpected, expects, happens to",
    r"anew|shall|lest|whence|hither|thither|heed|vouch": "again, must, …",
    r"tells? of|told of": "reports, announces",
}
ALLOWED = (
    '"mend"', "`mend`",  # the JSON name of 0.1, kept for one release
    'held else "left over"',  # a state in the JSON of `sessions list`, as in 0.1
    "needs no screen", "full screen", "on screen", "screenshot", "without a screen",
    'part="screen"', 'get("screen")', "screen.skipped", "screen reader",
    "right ear", "left ear",
)  # fmt: skip


def texts() -> Iterator[tuple[str, str]]:
    """Each line of what people read, with its place."""
    for pattern in TEXTS:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                text, _, _ = path.read_text().partition("## Renamed since")
                for number, line in enumerate(text.splitlines(), 1):
                    yield f"{path.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("old", RENAMED)
def test_a_renamed_word_is_nowhere_any_more(old: str) -> None:
    pattern = re.compile(rf"(?i)(?<![a-z])(?:{old})(?![a-z])")
    found = []
    for place, line in texts():
        rest = line
        for allowed in ALLOWED:
            rest = rest.replace(allowed, "")
        if pattern.search(rest):
            found.append(f"{place}: {line.strip()}")
    assert not found, f"say {RENAMED[old]} instead"
