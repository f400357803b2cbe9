import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.commands.run import _Announcer, _reload_on_hangup
from relayd.config.loading import load, load_tree
from relayd.config.reload import RELOADABLE, Reloader, differences
from relayd.config.settings import Settings
from relayd.control.notify import Notifier
from relayd.errors import ConfigError, FaceRejected
from relayd.process.signals import stopped_by_signals
from relayd.relay.relay import Relay
from relayd.relay.status import RelayState

FACE = "http://127.0.0.1:9/a.png"
LANDMARKS = "1,2:3,4:5,6:7,8"
OTHER = "http://127.0.0.1:9/b.png"


def settings(**sections: Any) -> Settings:
    return load_tree({"face": {"image": FACE}, **sections})


class Applied:
    """Records what a reload applies."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.all: list[Settings] = []
        self.refusal = refusal

    async def __call__(self, merged: Settings) -> None:
        if self.refusal:
            raise self.refusal
        self.all.append(merged)


def reloader(
    running: Settings, wanted: Settings | Exception, apply: Callable[[Settings], Awaitable[None]]
) -> Reloader:
    def read() -> Settings:
        if isinstance(wanted, Exception):
            raise wanted
        return wanted

    return Reloader(running, read, apply)


def test_every_reloadable_key_is_a_key_of_the_settings() -> None:
    for key in RELOADABLE:
        section, name = key.split(".")
        assert name in type(getattr(settings(), section)).model_fields


def test_each_key_that_differs_is_named() -> None:
    new = settings(
        source={"url": "a.mp4", "options": {"x": "1"}},
        akool={"api_key": "a-new-key"},
        output=[{"kind": "camera", "device": "/dev/video9"}],
    )
    assert list(differences(settings(), settings())) == []
    assert list(differences(settings(), new)) == [
        "source.url",
        "source.options",
        "akool.api_key",
        "output",
    ]


async def test_what_can_change_is_taken_over_and_what_cannot_is_named() -> None:
    applied = Applied()
    wanted = settings(
        face={"image": OTHER},
        akool={"session_max": 60},
        video={"fps": 25},
        privacy={"fallback": "raw"},
    )
    one = reloader(settings(), wanted, applied)
    result = await one.reload()
    assert result.applied == ("face.image", "akool.session_max")
    assert result.restart_needed == ("video.fps", "privacy.fallback")
    assert result.note == "restart needed for video.fps, privacy.fallback"
    (merged,) = applied.all
    assert merged.face.image.reveal() == OTHER
    assert merged.akool.session_max == 60
    assert merged.video.fps == 20, "a key that needs a restart is left as it runs"
    assert merged.privacy.fallback == "standby", "a reload never shows a raw face"


async def test_how_long_a_session_is_kept_can_change_and_whether_it_is_on_demand_cannot() -> None:
    applied = Applied()
    wanted = settings(on_demand={"mode": "never", "grace": 5})
    result = await reloader(settings(), wanted, applied).reload()
    assert result.applied == ("on_demand.grace",)
    assert result.restart_needed == ("on_demand.mode",)
    (merged,) = applied.all
    assert merged.on_demand.grace == 5
    assert merged.on_demand.mode == "auto"


async def test_what_was_taken_over_once_is_not_taken_over_again() -> None:
    applied = Applied()
    one = reloader(settings(), settings(face={"image": OTHER}), applied)
    assert (await one.reload()).applied == ("face.image",)
    again = await one.reload()
    assert again.applied == ()
    assert again.note == ""
    assert len(applied.all) == 1


async def test_a_restart_stays_needed_until_the_key_is_as_before() -> None:
    wanted = [settings(video={"fps": 25}), settings(video={"fps": 25}), settings()]
    one = Reloader(settings(), lambda: wanted.pop(0), Applied())
    assert (await one.reload()).restart_needed == ("video.fps",)
    assert (await one.reload()).restart_needed == ("video.fps",)
    assert (await one.reload()).note == ""


async def test_a_bad_file_is_refused_with_its_faults_and_changes_nothing() -> None:
    applied = Applied()
    faults = ['video.fit = "crap": give crop, pad or stretch', "face.imag: unknown key"]
    result = await reloader(settings(), ConfigError(faults), applied).reload()
    assert result.faults == tuple(faults)
    assert result.note == f"reload refused: {faults[0]} (and 1 more)"
    assert not applied.all


async def test_a_face_that_the_service_refuses_is_reported_and_tried_again_at_the_next_reload() -> (
    None
):
    applied = Applied(FaceRejected("no face was found in [face] image"))
    one = reloader(settings(), settings(face={"image": OTHER}), applied)
    assert "no face was found" in (await one.reload()).note
    applied.refusal = None
    assert (await one.reload()).applied == ("face.image",)


async def test_a_secret_in_a_fault_is_not_shown() -> None:
    fault = ConfigError(["source.url = 'rtsp://me:hunter22@cam/': no such thing"])
    assert "hunter22" not in (await reloader(settings(), fault, Applied()).reload()).note


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(settings(), "studio", cast("AkoolClient", None), Journal(tmp_path))
    yield relay
    relay.pipeline.stop_outputs()


async def test_a_relay_keeps_a_face_that_a_person_put_on_when_the_file_names_no_other(
    relay: Relay,
) -> None:
    await relay.set_face(OTHER, LANDMARKS)
    await relay.apply(settings(akool={"session_max": 60}))
    assert relay._runner.machine.face.image_url == OTHER
    await relay.apply(settings(face={"image": FACE + "?2", "landmarks": LANDMARKS}))
    assert relay._runner.machine.face.image_url == FACE + "?2"


async def test_a_relay_with_an_unusable_standby_picture_stays_as_it_was(
    relay: Relay, tmp_path: Path
) -> None:
    drawn = relay.pipeline.renderer.draw("x")
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(ConfigError, match="standby_image"):
        await relay.apply(settings(face={"image": OTHER}, privacy={"standby_image": str(bad)}))
    assert relay._runner.machine.face.image_url == FACE
    assert relay.pipeline.renderer.draw("x") is drawn


async def test_another_standby_picture_is_shown_by_the_next_tick(
    relay: Relay, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), (255, 255, 255)).save(tmp_path / "white.png")
    await relay.apply(settings(privacy={"standby_image": str(tmp_path / "white.png")}))
    relay.pipeline._draw_pool.submit(lambda: None).result(5)  # earlier drawing is done
    assert relay.pipeline.output_clock._standby.i420[0, 0] == 235  # white in BT.601


async def test_a_reload_changes_no_word_on_the_standby_picture(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, str]] = []
    monkeypatch.setattr(relay.pipeline, "set_standby_text", lambda *text: drawn.append(text))
    relay._enter(RelayState.OPENING)
    await relay.apply(settings(akool={"session_max": 60}))
    assert drawn == [RelayState.OPENING.on_picture("")] * 2


class Manager:
    """A service manager's end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0)

    def received(self) -> list[str]:
        lines = []
        while True:
            try:
                lines += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines

    async def next(self) -> list[str]:
        async with asyncio.timeout(2):
            message = await asyncio.get_running_loop().sock_recv(self.socket, 4096)
        return message.decode().split("\n")


async def test_a_hangup_before_ready_waits_for_it_and_the_status_keeps_the_note(
    tmp_path: Path,
) -> None:
    manager = Manager(tmp_path / "notify")
    announcer = _Announcer(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
    one = reloader(settings(), settings(video={"fps": 25}), Applied())
    with stopped_by_signals(hangup_ends=False) as stop:
        job = asyncio.create_task(_reload_on_hangup(one, announcer))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        assert manager.received() == [], "READY of a reload would be taken for the start's"
        announcer(RelayState.STANDBY, "")
        assert manager.received() == ["READY=1", "STATUS=Standing by"]
        assert (await manager.next())[0] == "RELOADING=1"
        note = "[restart needed for video.fps]"
        assert await manager.next() == ["READY=1", f"STATUS=Standing by {note}"]
        announcer(RelayState.LIVE, "")
        assert manager.received() == [f"STATUS=Live {note}"]
        assert not stop.is_set()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    manager.socket.close()


@pytest.mark.parametrize("fault", [RecursionError("too deep"), ValueError("4300 digits")])
async def test_a_reload_that_fails_unexpectedly_is_reported_and_the_next_one_works(
    fault: Exception,
) -> None:
    wanted: list[Settings | Exception] = [fault, settings(face={"image": OTHER})]

    def read() -> Settings:
        if isinstance(one := wanted.pop(0), Exception):
            raise one
        return one

    applied = Applied(RuntimeError("a bug in apply"))
    one = Reloader(settings(), read, applied)
    assert (
        await one.reload()
    ).note == f"reload refused: unexpected {type(fault).__name__}: {fault} (a fault of relayd)"
    wanted.append(settings(face={"image": OTHER}))
    assert "a bug in apply" in (await one.reload()).note
    applied.refusal = None
    assert (await one.reload()).applied == ("face.image",)


async def test_a_file_that_toml_cannot_parse_does_not_end_reloading(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    announcer = _Announcer(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
    file = tmp_path / "relay.toml"
    file.write_text("")
    one = Reloader(load(file, (), {}), lambda: load(file, (), {}), Applied())
    announcer(RelayState.STANDBY, "")
    await manager.next()
    job = asyncio.create_task(_reload_on_hangup(one, announcer))
    await asyncio.sleep(0)
    bad = "[video]\nfps = " + "9" * 5000
    deep = "output = " + "[" * 2000
    for text, note in (("", ""), (bad, "too many digits"), (deep, "too deeply"), ("", "")):
        file.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)
        assert (await manager.next())[0] == "RELOADING=1"
        ready, status = await manager.next()
        assert ready == "READY=1"
        assert note in status
        assert bool(note) == ("reload refused" in status)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    manager.socket.close()


async def test_the_hangup_of_the_terminal_ends_the_relay_cleanly() -> None:
    with stopped_by_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(2):
            await stop.wait()


async def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
