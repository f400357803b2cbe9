import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice
from relayd.demo import settings_for
from relayd.errors import JoinRefused, LinkForbidden, LinkLost, RelaydError, Throttled
from relayd.frames import OutputFrame
from relayd.output.base import OutputChange, OutputEvent
from relayd.relay.relay import Relay
from relayd.route import Route
from relayd.supervisor import BLOCKED_RETRY, MOST_SHORT_LINKS
from relayd.wishes import Wishes
from tests.test_clock import FakeClock


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    """A relay that nobody runs; its parts are there, none is open."""
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    relay = Relay(settings, "studio", cast("AkoolClient", None), Journal(tmp_path))
    yield relay
    relay.pipeline.stop_outputs()


async def first_wait_after(
    relay: Relay, failure: RelaydError, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, bool]:
    """Give how long the relay wants to wait after a session that failed, and if it would."""
    waits: list[tuple[float, bool]] = []

    async def wanted() -> None:
        pass

    async def session() -> None:
        await relay.resume()  # somebody asks for something while the session is open
        raise failure

    async def wait(seconds: float) -> None:
        waits.append((seconds, not relay._wishes.asked.is_set()))
        raise asyncio.CancelledError

    monkeypatch.setattr(relay._supervisor, "_until_wanted", wanted)
    monkeypatch.setattr(relay._supervisor, "_one_session", session)
    monkeypatch.setattr(relay._wishes, "sleep", wait)
    with pytest.raises(asyncio.CancelledError):
        await relay._supervisor.run()
    return waits[0]


async def test_a_service_that_names_a_wait_is_given_it(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    seconds, _ = await first_wait_after(relay, Throttled("slow", retry_after=90.0), monkeypatch)
    assert seconds == 90.0


async def test_what_was_asked_during_a_session_does_not_end_the_wait_after_it(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    _, waits = await first_wait_after(relay, LinkLost("gone"), monkeypatch)
    assert waits


async def test_a_session_whose_token_ends_is_followed_by_another_in_time(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    hurried: list[bool] = []

    async def go_live(route: Route, _face: FaceChoice, _on_stage: object) -> None:
        route.ends_soon = True

    monkeypatch.setattr(Route, "open", go_live)
    monkeypatch.setattr(Route, "check", lambda _route: None)
    monkeypatch.setattr(Wishes, "keeps", property(lambda _: not hurried))
    monkeypatch.setattr(relay._supervisor.rotation, "hurry", lambda: hurried.append(True))
    await relay._supervisor._one_session()
    assert hurried


async def test_a_route_that_comes_while_the_face_is_changed_gets_the_new_face_too(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    told: list[tuple[Route, str]] = []

    async def update(route: Route, face: FaceChoice) -> None:
        if not told:
            relay._routes.add()
        told.append((route, face.image_url))

    monkeypatch.setattr(Route, "update_face", update)
    first = relay._routes.add()
    await relay.set_face("http://127.0.0.1:9/b.png")
    assert [route for route, _ in told] == list(relay._routes)
    assert told[0][0] is first


async def test_what_a_person_must_mend_is_not_tried_in_a_loop(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    clock = FakeClock()
    relay._supervisor._clock = clock
    began = clock.time

    async def wanted() -> None:
        if clock.time > began:
            raise asyncio.CancelledError

    async def session() -> None:
        raise LinkForbidden("wrong app id")

    async def sleep(seconds: float) -> bool:
        clock.time += seconds
        return False

    monkeypatch.setattr(relay._supervisor, "_until_wanted", wanted)
    monkeypatch.setattr(relay._supervisor, "_one_session", session)
    monkeypatch.setattr(relay._wishes, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await relay._supervisor.run()
    assert clock.time - began == pytest.approx(BLOCKED_RETRY, abs=1.0)


async def test_a_refused_token_is_answered_with_another_session_soon(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    seconds, _ = await first_wait_after(relay, JoinRefused("token expired"), monkeypatch)
    assert seconds < 1.0


async def test_a_session_whose_link_breaks_again_and_again_is_given_up(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    route = relay._routes.add()
    rejoined: list[Route] = []

    async def rejoin(route: Route, _on_stage: object) -> None:
        rejoined.append(route)
        route.short_links += 1

    monkeypatch.setattr(Route, "rejoin", rejoin)
    monkeypatch.setattr(Wishes, "keeps", property(lambda _: True))
    for _ in range(MOST_SHORT_LINKS):
        assert await relay._supervisor._rejoin(route, LinkLost("gone"))
    with pytest.raises(LinkLost):
        await relay._supervisor._rejoin(route, LinkLost("gone"))
    assert len(rejoined) == MOST_SHORT_LINKS


class Camera:
    """An output whose name is known when it is open."""

    name = "auto"

    def open(self) -> None:
        self.name = "/dev/video3"

    def show(self, frame: OutputFrame) -> None:
        """Show it nowhere."""

    def close(self) -> None:
        """Close nothing."""


async def test_an_output_that_got_its_name_at_its_opening_is_told_of_by_that_name(tmp_path: Path):
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    client, journal = cast("AkoolClient", None), Journal(tmp_path)
    relay = Relay(settings, "studio", client, journal, more_outputs=[Camera()])
    await asyncio.to_thread(relay.pipeline.start_outputs)
    try:
        assert relay.status().outputs == {"/dev/video3": "ok"}
        relay._hear_output(OutputEvent("/dev/video3", OutputChange.LOST, "it was unplugged"))
        assert relay.status().outputs == {"/dev/video3": "it was unplugged"}
        relay._hear_output(OutputEvent("/dev/video3", OutputChange.BACK))
        assert relay.status().outputs == {"/dev/video3": "ok"}
        assert relay.status().reconnects["output"] == 1
    finally:
        await asyncio.to_thread(relay.pipeline.stop_outputs)
