"""The journal on a real disk, with real processes that die."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.akool import history as history_module
from relayd.akool import journal as journal_module
from relayd.akool.boottime import read_boot_id
from relayd.akool.journal import Journal
from relayd.akool.models import LiveSession
from relayd.akool.records import JournalRecord
from relayd.errors import Unavailable

BASE_URL = "https://openapi.example"
TOKEN = "007eJxTYFj-of-the-journal"


def session(session_id: str = "685ea0bb5aa150dd8b7116b1") -> LiveSession:
    made = LiveSession.read(
        {"_id": session_id, "channel_id": "channel-1", "front_rtc_token": TOKEN}
    )
    assert made is not None
    return made


HOLDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from relayd.akool.journal import Journal
    from relayd.akool.models import LiveSession

    live = LiveSession.read({"_id": sys.argv[2], "channel_id": "c"})
    entry = Journal(Path(sys.argv[1])).record(live, base_url="https://openapi.example", relay="r")
    print("recorded", flush=True)
    time.sleep(60)
    """
)


@contextmanager
def holder(directory: Path, session_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process that owns a session."""
    command = [sys.executable, "-c", HOLDER, str(directory), session_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"recorded\n"
            yield process
        finally:
            process.kill()


def test_a_session_of_a_live_process_is_held_and_of_a_killed_one_orphaned(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    with holder(tmp_path, "abc") as process:
        assert [(record.id, record.held) for record in journal.entries()] == [("abc", True)]
        assert journal.orphans() == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [(record.id, record.held) for record in journal.entries()] == [("abc", False)]
        (left,) = journal.orphans()
        assert left.record.pid == process.pid
        assert left.record.base_url == BASE_URL
        assert journal.orphans() == []  # one process adopts it
        left.remove()
    assert journal.entries() == []


def test_a_child_process_does_not_keep_its_parents_session(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    entry = journal.record(session(), base_url=BASE_URL, relay="studio")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        entry.release()
        (left,) = journal.orphans()
        left.release()
        child.communicate(b"\n")


def test_an_entry_holds_what_closing_needs_and_no_secret(tmp_path: Path) -> None:
    journal = Journal(tmp_path, wall=lambda: 1000.0, boottime=lambda: 77.5)
    entry = journal.record(session(), base_url=BASE_URL, relay="studio")
    (path,) = (tmp_path / "sessions").iterdir()
    assert path.name == "685ea0bb5aa150dd8b7116b1.json"
    assert TOKEN not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert journal.entries() == [
        JournalRecord(
            id="685ea0bb5aa150dd8b7116b1",
            channel="channel-1",
            base_url=BASE_URL,
            relay="studio",
            opened_at=1000.0,
            pid=os.getpid(),
            held=True,
            boot_id=read_boot_id(),
            opened_boottime=77.5,
        )
    ]
    entry.release()


def test_a_removed_session_is_in_the_history(tmp_path: Path) -> None:
    now = 1000.0
    journal = Journal(tmp_path, wall=lambda: now)
    entry = journal.record(session(), base_url=BASE_URL, relay="studio")
    now = 1090.5
    entry.remove()
    entry.remove()
    assert journal.entries() == []
    (line,) = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "id": session().id,
        "relay": "studio",
        "opened": 1000.0,
        "closed": 1090.5,
        "seconds": 90.5,
    }


def test_the_history_is_bounded_and_keeps_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "LARGEST_HISTORY", 2000)
    journal = Journal(tmp_path, wall=lambda: 1000.0)
    for number in range(60):
        journal.note_closed(JournalRecord(str(number), "c", BASE_URL, "r", 1.0, 1, held=True))
        assert (tmp_path / "history.jsonl").stat().st_size <= 2000
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    numbers = [int(line["id"]) for line in lines]
    assert numbers == list(range(numbers[0], 60))
    assert len(numbers) >= 10


def test_an_unwritable_history_keeps_no_session_in_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    entry = journal.record(session(), base_url=BASE_URL, relay="studio")
    (tmp_path / "history.jsonl").mkdir()
    entry.remove()
    assert journal.entries() == []


@pytest.mark.parametrize(
    "session_id",
    ["../../../etc/cron.d/x", "/etc/passwd", "..", ".hidden", "a/b", "x" * 1000, "ünïcode", "a-b"],
)
def test_a_hostile_id_stays_in_the_folder_and_comes_back_whole(
    tmp_path: Path, session_id: str
) -> None:
    state = tmp_path / "state"
    journal = Journal(state)
    entry = journal.record(session(session_id), base_url=BASE_URL, relay="studio")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == list(
        (state / "sessions").iterdir()
    )
    assert [record.id for record in journal.entries()] == [session_id]
    entry.remove()
    assert journal.entries() == []


@given(st.lists(st.text(min_size=1).filter(str.isprintable), unique=True, min_size=2, max_size=5))
def test_no_two_ids_share_a_file_name(ids: list[str]) -> None:
    names = {journal_module._file_name(session_id) for session_id in ids}
    assert len(names) == len(ids)
    assert all(name.isascii() and "/" not in name and name[0] != "." for name in names)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 300,
        b'{"id": "a"',
        b"[" * 10_000,
        b"[]",
        b"{}",
        b'{"id": "", "channel": "", "base_url": "", "relay": "", "opened_at": 1.0, "pid": 1}',
        b'{"id": 7, "channel": "", "base_url": "", "relay": "", "opened_at": 1.0, "pid": 1}',
        b'{"id": "a", "channel": "", "base_url": "", "relay": "", "opened_at": NaN, "pid": 1}',
        b'{"id": "a", "channel": "", "base_url": "", "relay": "", "opened_at": 1.0, "pid": 1}'
        + b" " * 70_000
        + b"x",
    ],
)
def test_a_broken_file_hides_no_other_session(tmp_path: Path, content: bytes) -> None:
    journal = Journal(tmp_path)
    entry = journal.record(session(), base_url=BASE_URL, relay="studio")
    broken = tmp_path / "sessions" / "0.json"
    broken.write_bytes(content)
    expected = [session().id]
    if len(content) > 70_000:  # readable as far as an entry may go
        expected = ["a", session().id]
    assert [record.id for record in journal.entries()] == expected
    entry.release()
    left = journal.orphans()
    assert [one.record.id for one in left] == expected
    for one in left:
        one.release()
    assert broken.exists()


def entry_fields(**more: Any) -> bytes:
    fields = {"id": "a", "channel": "", "base_url": "", "relay": "", "opened_at": 1.0, "pid": 1}
    return json.dumps(fields | more).encode()


UNREADABLE = [
    (b"", "empty"),
    (b"\x00" * 300, "empty"),
    (b'{"id": "a"', "no whole JSON"),
    (b"[" * 10_000, "no whole JSON"),
    (b"7", "no JSON object"),
    (b"{}", "id is missing"),
    (entry_fields(id=""), "id is empty"),
    (entry_fields(id=7), "id is missing or no text"),
    (entry_fields(opened_at=float("nan")), "opened_at is missing or no number"),
    (entry_fields(version=2), "written by a newer relayd (version 2)"),
    (b'{"version": 3, "session": {"of": "another form"}}', "newer relayd (version 3)"),
    (entry_fields(version="1"), "its version is no number"),
]


@pytest.mark.parametrize(("content", "why"), UNREADABLE)
def test_an_unreadable_file_is_reported_and_never_ignored(
    tmp_path: Path, content: bytes, why: str
) -> None:
    journal = Journal(tmp_path)
    journal.probe()
    (tmp_path / "sessions" / "abc.json").write_bytes(content)
    contents = journal.contents()
    assert contents.records == ()
    (found,) = contents.unreadable
    assert (found.name, found.held) == ("abc.json", False)
    assert why in found.why
    assert journal.unreadable_file_of("abc") == found


@pytest.mark.parametrize("more", [{}, {"version": 1}, {"version": 1, "colour": "blue"}])
def test_entries_of_0_1_and_of_version_1_with_unknown_fields_are_read(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    journal = Journal(tmp_path)
    journal.probe()
    (tmp_path / "sessions" / "a.json").write_bytes(entry_fields(**more))
    assert [record.id for record in journal.entries()] == ["a"]
    assert journal.contents().unreadable == ()


def test_an_entry_has_its_version(tmp_path: Path) -> None:
    Journal(tmp_path).record(session(), base_url=BASE_URL, relay="studio").release()
    (path,) = (tmp_path / "sessions").iterdir()
    assert json.loads(path.read_text())["version"] == 1


def test_an_unfinished_file_of_a_killed_process_is_reported(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.probe()
    (tmp_path / "sessions" / "abc.part").write_bytes(b'{"id": "ab')
    assert [entry.name for entry in journal.contents().unreadable] == ["abc.part"]
    assert journal.unreadable_file_of("abc") is not None


def test_a_newer_relays_session_is_held_while_that_relay_runs(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    entry = journal.record(session("abc"), base_url=BASE_URL, relay="studio")
    (path,) = (tmp_path / "sessions").iterdir()
    path.write_bytes(b'{"version": 2}')
    assert [one.held for one in journal.contents().unreadable] == [True]
    entry.release()
    assert [one.held for one in journal.contents().unreadable] == [False]


def test_another_users_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.record(session("abc"), base_url=BASE_URL, relay="studio").release()
    real = os.open

    def refuse(path: Any, *how: Any) -> int:
        if str(path).endswith("abc.json"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *how)

    monkeypatch.setattr("relayd.akool.files.os.open", refuse)
    assert [one.why for one in journal.contents().unreadable] == ["Permission denied"]
    assert journal.orphans() == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM, errno.EACCES])
def test_entries_are_read_from_a_read_only_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = Journal(tmp_path)
    entry = journal.record(session("abc"), base_url=BASE_URL, relay="studio")
    real = os.open

    def read_only(path: Any, how: int, *mode: Any) -> int:
        if how & os.O_RDWR:
            raise OSError(number, os.strerror(number))
        return real(path, how, *mode)

    monkeypatch.setattr("relayd.akool.files.os.open", read_only)
    assert [(record.id, record.held) for record in journal.entries()] == [("abc", True)]
    entry.release()
    (left,) = journal.orphans()
    left.release()


def test_a_folder_of_another_user_is_unavailable_and_names_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    for attempt in (Journal(tmp_path).entries, Journal(tmp_path).doubts):
        with pytest.raises(Unavailable, match="Permission denied") as caught:
            attempt()
        assert f"run this as {tmp_path.owner()}" in caught.value.hint


def test_what_is_no_regular_file_is_reported_and_left_in_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.probe()
    folder = tmp_path / "sessions"
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    Journal(tmp_path / "other").record(session(), base_url=BASE_URL, relay="r").release()
    (elsewhere,) = (tmp_path / "other" / "sessions").iterdir()
    (folder / "link.json").symlink_to(elsewhere)
    (folder / "notes.txt").write_text("mine")
    contents = journal.contents()
    assert contents.records == ()
    assert {entry.name: entry.why for entry in contents.unreadable} == dict.fromkeys(
        ("folder.json", "link.json", "pipe.json"), "not a regular file"
    )
    assert journal.orphans() == []
    assert len(list(folder.iterdir())) == 4


def test_an_unreadable_file_is_logged_once_and_not_at_each_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    journal.probe()
    (tmp_path / "sessions" / "abc.json").write_bytes(b"7")
    for _ in range(3):
        assert journal.orphans() == []
    assert capsys.readouterr().out.count("journal.unreadable") == 1


def test_a_crash_between_write_and_rename_loses_no_session(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record(session(), base_url=BASE_URL, relay="studio").release()
    (path,) = (tmp_path / "sessions").iterdir()
    path.rename(path.with_suffix(".part"))
    (left,) = journal.orphans()
    assert left.record.id == session().id
    left.remove()
    assert journal.entries() == []


def test_a_state_folder_that_is_a_file_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    journal = Journal(tmp_path / "state")
    for attempt in (
        journal.probe,
        lambda: journal.record(session(), base_url=BASE_URL, relay="studio"),
        journal.entries,
    ):
        with pytest.raises(Unavailable, match=r"\[state\] directory"):
            attempt()


def test_a_read_only_state_folder_names_the_setting() -> None:
    # /proc refuses to make folders, even to root.
    with pytest.raises(Unavailable, match=r"\[state\] directory"):
        Journal(Path("/proc/relayd")).probe()


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_records_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(tmp_path)
    journal.probe()
    monkeypatch.setattr(f"relayd.akool.journal.os.{step}", full)
    with pytest.raises(Unavailable, match="No space left"):
        journal.record(session(), base_url=BASE_URL, relay="studio")
    monkeypatch.undo()
    assert list((tmp_path / "sessions").iterdir()) == []


def test_file_and_folder_are_on_the_disk_before_a_session_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.probe()
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr("relayd.akool.journal.os.fsync", fsync)
    entry = journal.record(session("abc"), base_url=BASE_URL, relay="studio")
    assert synced == ["abc.part", "sessions"]
    entry.release()


def test_closing_a_file_of_another_process_is_no_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    entry = journal.record(session(), base_url=BASE_URL, relay="studio")
    entry.release()
    (left,) = journal.orphans()
    left.remove()
    entry.remove()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
