"""The text that others in a call can read on the standby picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import ImageDraw

from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.config.loading import load_tree
from relayd.config.settings import Settings
from relayd.relay.relay import Relay
from relayd.relay.status import RelayState

SENTENCES = {"Camera is starting", "Camera paused", "Camera is reconnecting", "Camera is off"}
HOSTILE = "rtsp://me:hunter22@10.0.0.5/cam: the quota of account 4711 is used up\n" * 3


def settings(**privacy: str) -> Settings:
    return load_tree(
        {
            "source": {"url": "rtsp://me:hunter22@10.0.0.5/cam"},
            "face": {"image": "http://127.0.0.1:9/face.png", "landmarks": "1,2:3,4:5,6:7,8"},
            "akool": {"api_key": "k"},
            "output": [],
            "privacy": privacy,
        }
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record each line of text that is drawn on any picture."""
    lines: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def note(pen: Any, place: Any, text: str, *rest: Any, **named: Any) -> None:
        lines.append(text)
        draw(pen, place, text, *rest, **named)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return lines


@pytest.fixture
def relay(tmp_path: Path, drawn: list[str]) -> Iterator[Relay]:
    relay = Relay(settings(), "studio", cast("AkoolClient", None), Journal(tmp_path))
    yield relay
    relay.pipeline.stop_outputs()


def finish_drawing(relay: Relay) -> None:
    relay.pipeline._draw_pool.submit(lambda: None).result(5)


@pytest.mark.parametrize("state", RelayState)
async def test_the_standby_picture_of_no_state_reveals_anything_of_the_reason(
    relay: Relay, drawn: list[str], state: RelayState
) -> None:
    relay._enter(state, HOSTILE)
    finish_drawing(relay)
    assert drawn
    assert set(drawn) <= SENTENCES
    assert relay.pipeline.output_clock._standby.text in SENTENCES


def test_each_state_has_one_of_the_fixed_sentences_and_each_sentence_is_used() -> None:
    assert {state.on_picture(HOSTILE) for state in RelayState} == {(one, "") for one in SENTENCES}


async def test_a_relay_that_may_show_details_shows_state_and_reason_from_a_reload_on(
    relay: Relay, drawn: list[str]
) -> None:
    relay._enter(RelayState.BACKOFF, "the service does not answer")
    await relay.apply(settings(standby_text="details"))
    finish_drawing(relay)
    assert relay.pipeline.output_clock._standby.text == (
        "Will try again shortly: the service does not answer"
    )
    await relay.apply(settings(standby_text="neutral"))
    finish_drawing(relay)
    assert relay.pipeline.output_clock._standby.text == "Camera is reconnecting"
