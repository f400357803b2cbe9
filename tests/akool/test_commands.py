"""`relayd sessions`: "nothing is open" is printed only if the journal can tell."""

import asyncio
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relayd.akool.journal import Journal, JournalEntry
from relayd.akool.models import LiveSession
from relayd.commands.open_sessions import close_sessions, read_report
from relayd.config.loading import load_tree
from relayd.config.settings import Settings
from relayd.errors import ExitCode, ServiceUnreachable, UsageError

if TYPE_CHECKING:
    from tests.akool.conftest import Service

LONG_ID = "63f1" * 30


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def journal(state: Path) -> Journal:
    made = Journal(state)
    made.probe()
    return made


@pytest.fixture
def settings(service: "Service", state: Path) -> Settings:
    return settings_of(state, service.url)


def settings_of(state: Path, url: str = "http://127.0.0.1:9") -> Settings:
    akool = {"api_key": "the-key-of-the-tests", "base_url": url}
    return load_tree({"state": {"directory": str(state)}, "akool": akool})


def put(journal: Journal, session_id: str, url: str = "http://127.0.0.1:9") -> JournalEntry:
    live = LiveSession.read({"_id": session_id, "channel_id": "c"})
    assert live is not None
    return journal.record(live, base_url=url, relay="studio")


class Confirm:
    """Stands for the user who is asked before something is closed."""

    def __init__(self, *, agrees: bool) -> None:
        self.agrees = agrees
        self.questions: list[str] = []

    def __call__(self, question: str) -> bool:
        self.questions.append(question)
        return self.agrees


async def close(
    settings: Settings, session_id: str | None = None, *, agrees: bool = False
) -> tuple[ExitCode, str, Confirm]:
    lines: list[str] = []
    confirm = Confirm(agrees=agrees)
    code = await close_sessions(settings, session_id, lines.append, confirm)
    return code, "\n".join(lines), confirm


def relayd(*arguments: object, state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a pipe: without a terminal to ask at, and with a narrow width."""
    config = state.parent / "relay.toml"
    config.write_text(
        f'[state]\ndirectory = "{state}"\n'
        '[akool]\napi_key = "the-key-of-the-tests"\nbase_url = "http://127.0.0.1:9"\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "relayd", *map(str, arguments), "-c", config],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=50,
        check=False,
        env=os.environ | {"COLUMNS": "40"} | environment,
    )


def test_ids_are_printed_whole_even_in_a_narrow_terminal(journal: Journal, state: Path) -> None:
    entry = put(journal, LONG_ID)
    done = relayd("sessions", "list", state=state)
    entry.release()
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "studio" in line]
    assert line.split()[0] == LONG_ID
    assert line.endswith("in use")


def test_a_program_gets_all_of_it_as_json(journal: Journal, state: Path) -> None:
    put(journal, "closed").remove()
    put(journal, LONG_ID).release()
    (state / "sessions" / "torn.json").write_bytes(b"{")
    journal.begin_create("http://127.0.0.1:9", "studio", "").mark_doubtful("the answer was lost")
    done = relayd("sessions", "list", "--json", state=state)
    answer: dict[str, Any] = json.loads(done.stdout)
    (session,) = answer["sessions"]
    assert session["id"] == LONG_ID
    assert session["opened"].endswith("+00:00")
    assert (session["relay"], session["service"]) == ("studio", "http://127.0.0.1:9")
    assert (session["state"], session["held"]) == ("left over", False)
    (unreadable,) = answer["unreadable"]
    assert unreadable == {"file": "torn.json", "why": "it is broken: no whole JSON", "held": False}
    (doubt,) = answer["doubts"]
    assert (doubt["reason"], doubt["held"]) == ("the answer was lost", False)
    assert 0 <= answer["spent_today"] <= answer["spent_30_days"] < 60
    assert answer["journal"] == str(state)


def test_an_unreadable_file_never_counts_as_no_open_sessions(journal: Journal, state: Path) -> None:
    (state / "sessions" / "abc.json").write_bytes(b"")
    lines = list(read_report(settings_of(state)).as_lines())
    assert "no open sessions" not in lines
    (line,) = [line for line in lines if "abc.json" in line]
    assert "a session may be open" in line
    assert "relayd sessions close abc" in line


def test_a_file_name_cannot_steer_the_terminal(journal: Journal, state: Path) -> None:
    (state / "sessions" / "\x1b[31mred.json").write_bytes(b"")
    assert all(line.isprintable() for line in read_report(settings_of(state)).as_lines())


def test_recent_doubts_are_listed_and_a_create_in_flight_as_such(
    journal: Journal, state: Path
) -> None:
    old = Journal(state, wall=lambda: time.time() - 8 * 24 * 3600)
    old.begin_create("http://old.example", "studio", "").mark_doubtful("lost")
    journal.begin_create("http://new.example", "studio", "").mark_doubtful("HTTP 502")
    flying = journal.begin_create("http://new.example", "kitchen", "")
    first, *more = read_report(settings_of(state)).as_lines()
    text = "\n".join(more)
    assert first == "no session is known to be open"
    flying.mark_answered()
    assert "old.example" not in text
    assert "a session may be open at http://new.example since" in text
    assert "look at your account (HTTP 502)" in text
    assert "being opened since" in text
    assert "by relay kitchen" in text


def test_open_sessions_count_into_the_sums(state: Path) -> None:
    wall = time.time()
    Journal(state, wall=lambda: wall - 5).record(
        LiveSession.read({"_id": "a", "channel_id": "c"}),  # type: ignore[arg-type]  # it has an id
        base_url="u",
        relay="r",
    ).release()
    report = read_report(settings_of(state))
    assert report.today.open == 1
    assert report.recent.open_seconds >= 5
    assert report.recent.text.startswith("0:00:00 in 0 closed sessions, 0:00:0")


def test_the_days_limit_stands_beside_the_days_sum(journal: Journal, state: Path) -> None:
    assert "today: 0:00:00 in 0 closed sessions" in read_report(settings_of(state)).as_lines()
    tree = {"state": {"directory": str(state)}, "akool": {"daily_limit": 90}}
    report = read_report(load_tree(tree))
    assert "today: 0:00:00 in 0 closed sessions; limit 1:30:00" in report.as_lines()
    assert report.as_dict()["daily_limit"] == 5400


async def test_nothing_left_open_is_clean(journal: Journal, settings: Settings) -> None:
    code, text, _ = await close(settings)
    assert (code, text) == (ExitCode.CLEAN, "nothing is left open")


async def test_a_create_in_doubt_is_not_reported_as_closed(
    journal: Journal, settings: Settings
) -> None:
    journal.begin_create("http://127.0.0.1:9", "studio", "").mark_doubtful("HTTP 502")
    code, text, _ = await close(settings)
    assert code is ExitCode.CLEAN
    first, second = text.splitlines()
    assert first == "nothing is known to be left open"
    assert "look at your account (HTTP 502)" in second


async def test_closing_all_reports_unreadable_files_and_fails(
    service: "Service", journal: Journal, settings: Settings, state: Path
) -> None:
    session = service.session()["data"]["_id"]
    put(journal, session, service.url).release()
    (state / "sessions" / "torn.json").write_bytes(b"{")
    code, text, _ = await close(settings)
    assert (code, service.open) == (ExitCode.FAILED, set())
    assert f"{session}: closed" in text
    assert "torn.json" in text
    assert "relayd sessions close torn" in text
    assert "nothing is left open" not in text


async def test_a_session_that_is_not_in_the_journal_is_closed_after_a_question(
    service: "Service", journal: Journal, settings: Settings
) -> None:
    session = service.session()["data"]["_id"]
    code, text, confirm = await close(settings, session, agrees=False)
    assert (code, text, service.open) == (ExitCode.FAILED, "", {session})
    assert confirm.questions == [
        f"{session}: not on the journal of this machine; close it at {service.url} anyway?"
    ]
    code, text, _ = await close(settings, session, agrees=True)
    assert (code, text, service.open) == (ExitCode.CLEAN, f"{session}: closed", set())


async def test_an_id_that_the_service_does_not_know_is_not_reported_as_closed(
    journal: Journal, settings: Settings
) -> None:
    code, text, _ = await close(settings, "abc", agrees=True)
    assert (code, text) == (ExitCode.FAILED, "abc: the service knows no such session")


async def test_closing_a_session_with_an_unreadable_file_removes_the_file(
    service: "Service", journal: Journal, settings: Settings, state: Path
) -> None:
    session = service.session()["data"]["_id"]
    file = state / "sessions" / f"{session}.json"
    file.write_bytes(b'{"version": 2}')
    code, text, confirm = await close(settings, session, agrees=True)
    assert (code, text, service.open) == (ExitCode.CLEAN, f"{session}: closed", set())
    assert "newer relayd" in confirm.questions[0]
    assert not file.exists()


@pytest.mark.parametrize("spoil", [False, True])
async def test_a_session_of_a_live_relay_is_left_alone_even_if_its_file_is_unreadable(
    service: "Service", journal: Journal, settings: Settings, state: Path, *, spoil: bool
) -> None:
    session = service.session()["data"]["_id"]
    entry = put(journal, session, service.url)
    if spoil:
        (state / "sessions" / f"{session}.json").write_bytes(b'{"version": 2}')
    code, text, confirm = await close(settings, session, agrees=True)
    assert (code, confirm.questions, service.open) == (ExitCode.FAILED, [], {session})
    assert "in use by" in text
    entry.release()


@pytest.mark.parametrize("session_id", ["", "  ", "a\nb", "x" * 2000])
async def test_what_is_no_id_is_wrong_usage(
    journal: Journal, settings: Settings, session_id: str
) -> None:
    with pytest.raises(UsageError):
        await close(settings, session_id, agrees=True)


def test_without_a_terminal_and_yes_an_unlisted_session_is_wrong_usage(
    journal: Journal, state: Path
) -> None:
    done = relayd("sessions", "close", "abc", state=state)
    assert done.returncode == ExitCode.USAGE
    assert "not on the journal of this machine" in done.stderr
    assert "--yes" in done.stderr


async def test_without_a_terminal_but_with_yes_an_unlisted_session_is_closed(
    service: "Service", journal: Journal, state: Path
) -> None:
    session = service.session()["data"]["_id"]
    there = f"akool.base_url={service.url}"
    close_it = functools.partial(relayd, "sessions", "close", session, "--yes", "--set", there)
    done = await asyncio.to_thread(close_it, state=state)
    assert (done.returncode, service.open) == (ExitCode.CLEAN, set()), done.stderr
    assert done.stdout.strip() == f"{session}: closed"


async def test_closing_at_a_service_that_does_not_listen_is_unavailable(
    journal: Journal, state: Path
) -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        await close(settings_of(state), "abc", agrees=True)
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


def test_a_journal_that_may_not_be_read_is_unavailable_and_says_who_may(
    journal: Journal, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to be another user")
    state.chmod(0o700)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    code = (
        "import os; from pathlib import Path; from relayd.akool.journal import Journal\n"
        f"os.setuid(65534); Journal(Path({str(state)!r})).entries()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Unavailable" in done.stderr
    assert "Permission denied (run this as root" in done.stderr
