"""What opening a source leaves behind when it fails."""

from threading import Event
from typing import TYPE_CHECKING

import pytest

from relayd.config.settings import SourceSettings
from relayd.media.decode import VideoInput
from relayd.media.frames import Geometry
from relayd.source import opening
from relayd.source.limits import SourceLimits
from relayd.source.opening import SourceOpener
from relayd.urls.safe import MediaUrl

if TYPE_CHECKING:
    from tests.support.clips import Clips


def test_a_source_is_closed_if_it_cannot_be_told_what_it_is(
    clips: "Clips", monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[VideoInput] = []
    original = VideoInput.close

    def close(source: VideoInput) -> None:
        closed.append(source)
        original(source)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("our bug")

    monkeypatch.setattr(VideoInput, "close", close)
    monkeypatch.setattr(opening, "settle", fail)
    settings = SourceSettings(url=MediaUrl(str(clips.quadrants("judged.mp4", 320, 240))))
    opener = SourceOpener(settings, Geometry(64, 48), "stretch", SourceLimits(settings), fps=20)
    with pytest.raises(RuntimeError, match="our bug"):
        opener.open(Event(), lambda: 2.0)
    assert len(closed) == 1
