"""Findings of `relayd check`, without a real camera."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relayd.akool.journal import Journal
from relayd.commands import check, check_media, remote
from relayd.commands.finding import CheckStatus, Finding
from relayd.config.loading import load_tree
from relayd.control import lookup
from relayd.errors import CameraUnavailable, ServiceUnreachable
from relayd.output.open_tracker import OpenTracker
from relayd.output.readers import ClientUsage, ReaderCounter
from relayd.process.name_lock import NameLock
from tests.support.clips import Clips


class Camera:
    """A camera that opens, unless it has a reason not to."""

    refusal = ""
    done: list[str]
    """What was done with it and its reader counter."""

    def __init__(self, device: str, *_: object) -> None:
        self.name = device
        Camera.done = []

    def open(self) -> None:
        if self.refusal:
            raise CameraUnavailable(self.refusal, hint="hint it")
        self.done.append("opened")

    def close(self) -> None:
        self.done.append("closed")


class Seen:
    """A reader counter with a fixed result; None: unknown."""

    def __init__(self, words: str, readers: int | None = 0) -> None:
        self.description, self._readers = words, readers

    def count(self, _now: float) -> int | None:
        Camera.done.append("looked")
        return self._readers

    def close(self) -> None:
        Camera.done.append("sight closed")


def finding(mode: str = "auto") -> Finding:
    tree = {
        "source": {"url": "clip.mp4"},
        "face": {"image": "http://127.0.0.1:9/face.png"},
        "akool": {"api_key": "k"},
        "on_demand": {"mode": mode},
        "output": [{"kind": "camera", "device": "/dev/video0"}],
    }
    (found,) = asyncio.run(check_media.check_outputs(load_tree(tree), "studio"))
    return found


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Use this reader counter."""
    monkeypatch.setattr(check_media, "CameraOutput", Camera)

    def see(sight: Callable[[], Any]) -> None:
        monkeypatch.setattr(check_media, "best_reader_counter", lambda *_: sight())

    return see


@pytest.mark.parametrize(
    ("way", "words"), [(ClientUsage, "the driver reports"), (OpenTracker, "has it open for 1 s")]
)
def test_check_reports_how_a_cameras_readers_are_counted(
    see: Callable[..., None], way: type[ReaderCounter], words: str
) -> None:
    see(lambda: Seen(way.description))
    found = finding()
    assert found.verdict is CheckStatus.OK
    assert found.why.startswith("/dev/video0 can be written; ")
    assert words in found.why
    assert Camera.done == ["opened", "looked", "sight closed", "closed"]


def test_readers_that_cannot_be_seen_are_a_warning_since_that_costs(
    see: Callable[..., None],
) -> None:
    def fail() -> Seen:
        raise OSError(28, "No space left on device")

    for sight, why in ((fail, "No space left"), (lambda: Seen("", None), "may not look into")):
        see(sight)
        found = finding()
        assert found.verdict is CheckStatus.WARNING
        assert why in found.why
        assert "on demand is off" in found.why
        assert Camera.done[-1] == "closed"


def test_readers_are_not_mentioned_where_no_session_depends_on_them(
    see: Callable[..., None],
) -> None:
    see(lambda: Seen(ClientUsage.description))
    assert finding("never").why == "/dev/video0 can be written"


def test_a_camera_that_is_refused_fails_the_check_with_its_hint(
    see: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Camera, "refusal", "/dev/video0 has exclusive_caps=0")
    found = finding()
    assert (found.verdict, found.hint) == (CheckStatus.FAILED, "hint it")


def journal_findings(state: Path) -> list[Finding]:
    return asyncio.run(
        check._check_journal(load_tree({"state": {"directory": str(state)}}), "studio")
    )


def test_check_reports_where_nothing_can_be_open(tmp_path: Path) -> None:
    (found,) = journal_findings(tmp_path)
    assert (found.verdict, found.why) == (CheckStatus.OK, "can be written; nothing is left open")


def test_check_warns_of_files_of_the_journal_that_cannot_be_read(tmp_path: Path) -> None:
    Journal(tmp_path).probe()
    (tmp_path / "sessions" / "abc.json").write_bytes(b'{"version": 2}')
    (found,) = journal_findings(tmp_path)
    assert found.verdict is CheckStatus.WARNING
    assert "abc.json: it was written by a newer relayd (version 2)" in found.why
    assert "relayd sessions list" in found.hint


def test_check_warns_of_creates_whose_answer_was_lost_and_not_of_one_in_flight(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    journal.begin_create("https://openapi.example", "studio", "").mark_doubtful("HTTP 502")
    flying = journal.begin_create("https://openapi.example", "kitchen", "")
    (found,) = journal_findings(tmp_path)
    flying.mark_answered()
    assert found.verdict is CheckStatus.WARNING
    assert "a session may be open at https://openapi.example" in found.why
    assert "HTTP 502" in found.why
    assert "your account" in found.hint


def test_a_state_directory_that_a_relay_of_this_name_uses_is_a_warning(tmp_path: Path) -> None:
    settings = load_tree({"state": {"directory": str(tmp_path)}})
    assert asyncio.run(check._check_name(settings, "studio")) == []
    with NameLock(tmp_path, "studio").take():
        (found,) = asyncio.run(check._check_name(settings, "studio"))
        assert asyncio.run(check._check_name(settings, "kitchen")) == []
    assert (found.part, found.verdict) == ("name", CheckStatus.WARNING)
    assert f"in use by a running relay 'studio' (process {os.getpid()})" in found.why


def with_parts(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    monkeypatch.setattr(check, "PARTS", parts)


async def test_each_finding_is_told_as_soon_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []

    async def first(*_: object) -> list[Finding]:
        return [Finding.ok("first", "works")]

    async def second(*_: object) -> list[Finding]:
        assert reported == ["first"]
        return []

    with_parts(monkeypatch, first=first, second=second)
    found = await check.run_checks(load_tree({}), "studio", lambda one: reported.append(one.part))
    assert [one.part for one in found] == ["first"]


async def test_a_part_that_hangs_is_given_up_with_its_limit_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(*_: object) -> list[Finding]:
        await asyncio.Event().wait()
        return []

    async def other(*_: object) -> list[Finding]:
        return [Finding.ok("other", "works")]

    monkeypatch.setattr(check, "PART_TIMEOUT", 0.05)
    with_parts(monkeypatch, service=hang, face=other, other=other)
    service, face, last = await check.run_checks(load_tree({}), "studio")
    assert (service.verdict, service.why) == (
        CheckStatus.FAILED,
        "given up after 0.05 s without an answer",
    )
    assert face.why == "not tried, as the service does not answer as it should"
    assert last.part == "other"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ServiceUnreachable("refused", hint="look"), "refused"),
        (OSError(24, "Too many open files"), "too many open files: the limit is"),
        (KeyError("x"), "unexpected KeyError: 'x'"),
    ],
)
async def test_any_failure_in_one_part_is_its_finding_and_the_others_are_tried(
    fault: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> list[Finding]:
        raise fault

    async def other(*_: object) -> list[Finding]:
        return [Finding.ok("other", "works")]

    with_parts(monkeypatch, rtc=fail, other=other)
    failed, last = await check.run_checks(load_tree({}), "studio")
    assert failed.part == "rtc"
    assert failed.why.startswith(words)
    assert last.part == "other"


def used_by_a_relay(monkeypatch: pytest.MonkeyPatch, **status: Any) -> None:
    """Let a relay run that has this status."""

    async def fetch_status(_relay: object) -> dict[str, Any]:
        return {"source": "", "source_alive": False, "outputs": {}, **status}

    monkeypatch.setattr(lookup, "relay_at", lambda path, _name: path)
    monkeypatch.setattr(remote, "fetch_status", fetch_status)


@pytest.mark.parametrize(
    ("outputs", "verdict"),
    [
        ({"/dev/video0": "ok"}, CheckStatus.WARNING),
        ({"/dev/video0": "unplugged"}, CheckStatus.FAILED),
        ({"/dev/video1": "ok"}, CheckStatus.FAILED),
    ],
)
def test_a_camera_that_the_running_relay_has_is_no_failure_while_it_works_there(
    outputs: dict[str, str],
    verdict: CheckStatus,
    monkeypatch: pytest.MonkeyPatch,
    see: Callable[..., None],
) -> None:
    see(lambda: Seen("unseen"))
    monkeypatch.setattr(Camera, "refusal", "another program writes to /dev/video0")
    assert finding().verdict is CheckStatus.FAILED, "no relay runs"
    used_by_a_relay(monkeypatch, outputs=outputs)
    found = finding()
    assert found.verdict is verdict
    assert ("the running relay 'studio' has it" in found.why) is (verdict is CheckStatus.WARNING)


@pytest.mark.parametrize("alive", [True, False])
async def test_a_source_that_the_running_relay_has_is_no_failure_while_it_works_there(
    *, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_by_a_relay(monkeypatch, source="/nonexistent.mp4", source_alive=alive)
    (found,) = await check_media.check_source(
        load_tree({"source": {"url": "/nonexistent.mp4"}}), "a"
    )
    assert found.verdict is (CheckStatus.WARNING if alive else CheckStatus.FAILED)
    used_by_a_relay(monkeypatch, source="/other.mp4", source_alive=True)
    (found,) = await check_media.check_source(
        load_tree({"source": {"url": "/nonexistent.mp4"}}), "a"
    )
    assert found.verdict is CheckStatus.FAILED, "it has another one"


async def test_options_of_the_source_that_ffmpeg_ignores_are_warned_of() -> None:
    options = {"rtsp_transprot": "udp"}
    tree = {"source": {"url": "lavfi:testsrc2=s=64x48", "options": options}}
    found, warning = await check_media.check_source(load_tree(tree), "a")
    assert found.verdict is CheckStatus.OK
    assert warning.verdict is CheckStatus.WARNING
    assert warning.why == "unknown option rtsp_transprot"
    assert warning.hint == "did you mean rtsp_transport"


def test_a_stream_that_waits_for_a_client_is_not_connected_to() -> None:
    url = "tcp://127.0.0.1:1?listen=1"
    tree = {"output": [{"kind": "stream", "url": url}]}
    (found,) = asyncio.run(check_media.check_outputs(load_tree(tree), "studio"))
    assert found.verdict is CheckStatus.OK
    assert "waits for a client to connect" in found.why


async def test_check_says_what_the_source_was_found_to_be(clips: Clips) -> None:
    clip = clips.quadrants("plain.mp4", 1280, 720)
    settings = load_tree({"source": {"url": str(clip)}})
    (found,) = await check_media.check_source(settings, "a")
    assert found.verdict is CheckStatus.OK
    assert found.why.endswith("plain.mp4: file, h264 1280x720 at 30 fps")
