"""A create whose answer is lost may have opened an unknown session: it is reported as a doubt."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relayd.akool.client import AkoolClient
from relayd.akool.credentials import ClientSecret
from relayd.akool.doubts import KEPT_FOR, KILLED, Doubt
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.errors import (
    CredentialsRefused,
    QuotaExhausted,
    RequestRefused,
    ServerFault,
    ServiceError,
    SessionDoubtful,
    Throttled,
    Unavailable,
)
from relayd.http.client import HttpClient
from tests.akool.conftest import http_answer

if TYPE_CHECKING:
    from tests.akool.conftest import Service

FACE = FaceChoice("https://example.org/face.png", "1,2:3,4:5,6:7,8")
DAY = 24 * 3600.0
URL = "https://openapi.example"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def keeper(client: AkoolClient, journal: Journal) -> SessionKeeper:
    return SessionKeeper(client, journal, relay="studio", answer_within=0.3, close_within=1.0)


async def never(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(1.0)  # longer than any timeout here


async def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{")
    await writer.drain()


LOST = [
    pytest.param(never, "no whole answer", id="timeout"),
    pytest.param(cut, "", id="cut"),
    pytest.param(http_answer(b"<html>", 502), "HTTP 502", id="502"),
    pytest.param(http_answer(b"", 504), "HTTP 504", id="504"),
    pytest.param({"code": 1000, "data": {}}, "no _id", id="no id"),
    pytest.param(http_answer(b"Sign in to the Wi-Fi"), "JSON", id="no JSON"),
    pytest.param(b"", "", id="closed"),
]
REFUSED = [
    (http_answer(b"", 429), Throttled),
    ({"code": 1003}, RequestRefused),
    ({"code": 1015}, ServerFault),
    ({"code": 1101}, CredentialsRefused),
    ({"code": 1104}, QuotaExhausted),
    (http_answer(b"", 404), RequestRefused),
]


@pytest.mark.parametrize(("reply", "cause"), LOST)
async def test_a_create_whose_answer_is_lost_is_a_doubt_with_the_text_of_its_cause(
    service: "Service", http: HttpClient, journal: Journal, reply: Any, cause: str
) -> None:
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http, call_deadline=0.4)
    keeper = SessionKeeper(client, journal, relay="studio")
    service.on("create", reply)
    with pytest.raises(SessionDoubtful) as caught:
        await keeper.open_session(FACE)
    assert caught.value.retryable
    assert cause in str(caught.value)
    assert (service.count("create"), keeper.doubtful, journal.entries()) == (1, 1, [])
    (doubt,) = journal.doubts()
    assert doubt == Doubt(doubt.at, "studio", service.url, client.account, doubt.reason, held=False)
    assert cause in doubt.reason
    assert doubt.reason in str(caught.value)


@pytest.mark.parametrize(("reply", "error"), REFUSED)
async def test_a_create_that_was_refused_is_no_doubt(
    service: "Service",
    keeper: SessionKeeper,
    journal: Journal,
    reply: Any,
    error: type[ServiceError],
) -> None:
    service.on("create", reply)
    with pytest.raises(error):
        await keeper.open_session(FACE)
    assert (journal.doubts(), keeper.doubtful) == ([], 0)


async def test_a_closed_port_is_no_doubt(
    journal: Journal, http: HttpClient, unused_tcp_port: int
) -> None:
    client = AkoolClient(f"http://127.0.0.1:{unused_tcp_port}", ClientSecret("me", "s3cret"), http)
    keeper = SessionKeeper(client, journal, relay="studio")
    with pytest.raises(ServiceError):
        await keeper.open_session(FACE)
    assert (journal.doubts(), keeper.doubtful) == ([], 0)


@pytest.mark.parametrize("reply", [b"", http_answer(b"", 502)])
async def test_a_login_whose_answer_is_lost_is_no_doubt_as_no_create_was_sent(
    service: "Service", journal: Journal, http: HttpClient, reply: bytes
) -> None:
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http)
    keeper = SessionKeeper(client, journal, relay="studio")
    service.on("getToken", reply)
    with pytest.raises(ServiceError) as caught:
        await keeper.open_session(FACE)
    assert not isinstance(caught.value, SessionDoubtful)
    assert (service.count("create"), journal.doubts()) == (0, [])


async def test_an_unexpected_error_leaves_a_doubt(
    service: "Service", keeper: SessionKeeper, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of httpx")

    monkeypatch.setattr(keeper.client._http, "request", broken)
    with pytest.raises(SessionDoubtful, match="RuntimeError: out of httpx"):
        await keeper.open_session(FACE)
    assert "out of httpx" in journal.doubts()[0].reason


async def test_an_answered_create_leaves_no_doubt(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    session = await keeper.open_session(FACE)
    assert (journal.doubts(), len(journal.entries())) == ([], 1)
    await session.close()


async def test_an_unusable_session_that_cannot_be_closed_is_in_the_journal_and_no_doubt(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("create", {"code": 1000, "data": {"_id": "broken"}})
    service.on("close", {"code": 1016})
    with pytest.raises(ServerFault, match="channel_id"):
        await keeper.open_session(FACE)
    assert ([one.id for one in journal.entries()], journal.doubts()) == (["broken"], [])


async def test_a_session_that_can_be_neither_recorded_nor_closed_is_a_doubt_with_its_id(
    service: "Service", keeper: SessionKeeper, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise Unavailable("no space left")

    monkeypatch.setattr(journal, "record", full)
    service.on("close", {"code": 1016})
    with pytest.raises(Unavailable):
        await keeper.open_session(FACE)
    (doubt,) = journal.doubts()
    assert f"relayd sessions close {next(iter(service.open))}" in doubt.reason


async def test_the_intent_is_on_disk_before_the_create_is_sent_and_held_until_the_answer(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    seen: list[list[Doubt]] = []

    async def look(writer: asyncio.StreamWriter) -> None:
        seen.append(await asyncio.to_thread(journal.doubts))
        writer.write(http_answer(service.session()))

    service.on("create", look)
    session = await keeper.open_session(FACE)
    ((doubt,),) = seen
    assert (doubt.held, doubt.reason, doubt.relay) == (True, "", "studio")
    await session.close()


async def test_a_create_that_cannot_be_noted_first_is_not_sent(
    service: "Service", keeper: SessionKeeper, tmp_path: Path
) -> None:
    (tmp_path / "doubts").write_text("")
    with pytest.raises(Unavailable, match=r"\[state\] directory"):
        await keeper.open_session(FACE)
    assert service.count("create") == 0


async def test_a_cancelled_create_without_an_answer_is_a_doubt(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("create", never)
    opening = asyncio.create_task(keeper.open_session(FACE))
    await service.arrived("create")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    (doubt,) = journal.doubts()
    assert (doubt.held, "stopped" in doubt.reason, keeper.doubtful) == (False, True, 1)


async def test_cancelled_while_the_intent_is_written_nothing_is_sent_and_no_doubt_left(
    service: "Service", keeper: SessionKeeper, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, real = asyncio.Event(), journal.begin_create
    loop = asyncio.get_running_loop()

    def slow_disk(*args: Any) -> Any:
        loop.call_soon_threadsafe(writing.set)
        time.sleep(0.3)
        return real(*args)

    monkeypatch.setattr(journal, "begin_create", slow_disk)
    opening = asyncio.create_task(keeper.open_session(FACE))
    await writing.wait()
    while not opening.done():
        opening.cancel()
        await asyncio.sleep(0.01)
    assert opening.cancelled()
    assert (service.count("create"), journal.doubts()) == (0, [])


HOLDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from relayd.akool.journal import Journal

    intent = Journal(Path(sys.argv[1])).begin_create("https://openapi.example", "studio", "me")
    print("begun", flush=True)
    time.sleep(60)
    """
)


@contextmanager
def opener(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process that waits for the answer of a create."""
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield process
        finally:
            process.kill()


def test_a_relay_killed_before_the_answer_leaves_a_doubt(tmp_path: Path, journal: Journal) -> None:
    with opener(tmp_path) as process:
        assert [(one.held, one.reason) for one in journal.doubts()] == [(True, "")]
        process.send_signal(signal.SIGKILL)
        process.wait()
    (doubt,) = journal.doubts()
    assert (doubt.held, doubt.reason, doubt.account) == (False, KILLED, "me")


def test_doubts_since_a_moment_are_returned_and_forgotten_after_a_week(tmp_path: Path) -> None:
    now = 1000.0 * DAY
    journal = Journal(tmp_path, wall=lambda: now)
    for day in range(3):
        now = (1000 + day) * DAY
        journal.begin_create(URL, str(day), "").mark_doubtful("lost")
    assert [one.relay for one in journal.doubts(1001 * DAY)] == ["1", "2"]
    now += KEPT_FOR - DAY + 1
    assert len(journal.doubts()) == 3, "reading removes nothing"
    journal.begin_create(URL, "now", "").mark_answered()
    assert [one.relay for one in journal.doubts()] == ["2"]


def test_acknowledged_doubts_are_still_returned_and_marked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for relay in ("studio", "other"):
        journal.begin_create("u", relay, "key").mark_doubtful("no answer")
    awaited = journal.begin_create("u", "studio", "key")
    journal.acknowledge_doubts("studio")
    journal.acknowledge_doubts("studio")
    found = {(one.relay, one.reason, one.looked_at) for one in journal.doubts()}
    assert found == {
        ("studio", "no answer", True),
        ("other", "no answer", False),
        ("studio", "", False),
    }
    awaited.mark_doubtful("no answer, once more")
    assert [one.looked_at for one in journal.doubts()] == [True, False, False]


def test_an_old_intent_that_is_still_held_stays(tmp_path: Path) -> None:
    now = 1000.0 * DAY
    journal = Journal(tmp_path, wall=lambda: now)
    hanging = journal.begin_create(URL, "hanging", "")
    now += 2 * KEPT_FOR
    journal.begin_create(URL, "now", "").mark_answered()
    assert [one.relay for one in journal.doubts()] == ["hanging"]
    hanging.mark_answered()
    assert journal.doubts() == []


@pytest.mark.parametrize("content", [b"", b'{"at": 1', b"[]", b'{"version": 2}', b'{"at": "x"}'])
def test_an_intent_that_cannot_be_read_is_a_doubt_too(
    tmp_path: Path, journal: Journal, content: bytes
) -> None:
    journal.begin_create(URL, "studio", "").mark_answered()
    (tmp_path / "doubts" / "broken.json").write_bytes(content)
    (doubt,) = journal.doubts(time.time() - 60)
    assert "broken.json cannot be read" in doubt.reason


def test_an_intent_holds_no_secret_and_is_readable_by_its_owner_only(
    tmp_path: Path, journal: Journal
) -> None:
    intent = journal.begin_create(URL, "studio", "fingerprint")
    (path,) = (tmp_path / "doubts").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert set(json.loads(path.read_text())) == {
        "version", "at", "base_url", "relay", "account", "pid", "reason",
    }  # fmt: skip
    intent.mark_answered()
    intent.mark_doubtful("too late: it was answered")
    assert journal.doubts() == []


def test_a_disk_that_fills_up_meanwhile_keeps_the_doubt(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    intent = journal.begin_create(URL, "studio", "")
    monkeypatch.setattr("relayd.akool.files.os.write", full)
    intent.mark_doubtful("the answer was lost")
    monkeypatch.undo()
    (doubt,) = journal.doubts()
    assert (doubt.held, doubt.relay) == (False, "studio")


@pytest.mark.parametrize("call", ["mark_answered", "mark_doubtful"])
def test_a_folder_that_is_gone_ends_an_intent_without_an_error(
    tmp_path: Path, journal: Journal, call: str
) -> None:
    intent = journal.begin_create(URL, "studio", "")
    (path,) = (tmp_path / "doubts").iterdir()
    path.unlink()
    path.parent.rmdir()
    end: Callable[..., None] = getattr(intent, call)
    end(*(["lost"] if call == "mark_doubtful" else []))
    assert journal.doubts() == []


def test_file_and_folder_are_on_the_disk_before_the_create_is_sent(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr("relayd.akool.files.os.fsync", fsync)
    intent = journal.begin_create(URL, "studio", "")
    (path,) = (tmp_path / "doubts").iterdir()
    assert synced == [tmp_path.name, f"{path.stem}.part", "doubts"]
    intent.mark_answered()
    assert len(synced) == 3, "removing it needs no further sync"
