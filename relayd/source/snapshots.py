"""Polls an http(s) URL that answers each request with one picture.

Such an answer looks like a still picture on a web server. It is polled as well: nothing tells a
camera's picture from one that never changes, a request a second costs little, and a camera that
froze without a word would cost a call. `kind = "image"` fetches it once.
"""

from typing import Final

from relayd.errors import SourceError, SourceLost
from relayd.media.container import MAX_PIXELS
from relayd.media.frames import I420
from relayd.source.playing import Playback

RETRY: Final = 0.25
"""s between requests while they fail: cameras answer now and then with an error, or with half a
picture."""
PATIENCE: Final = 0.5
"""Share of the stall limit for which failures are made up for: their cause is then reported, not
only that no picture came."""
_UNDECODABLE: Final = f"it may be damaged, or have more than {MAX_PIXELS} pixels"


def poll(playback: Playback, *, refresh: float, stall_limit: float) -> None:
    """Publish the picture of each answer, `refresh` seconds apart.

    An answer with several pictures is a stream: they are published as they come, and its end is
    a loss. Raises SourceError.
    """
    clock = playback.clock
    asked_at = clock.now()
    shown = _show_answer(playback)
    while shown is not None:
        due = asked_at + refresh
        if not (playback.show_until(shown, due) and playback.wait_until(due)):
            return
        asked_at = clock.now()
        shown = _ask_again(playback, asked_at + stall_limit * PATIENCE)


def _ask_again(playback: Playback, deadline: float) -> I420 | None:
    """Publish another answer; made up for until `deadline` if it fails."""
    clock = playback.clock
    while True:
        try:
            playback.reopen()
            return _show_answer(playback)
        except SourceError:
            if clock.now() + RETRY > deadline:
                raise
        if not playback.wait_until(clock.now() + RETRY):
            return None


def _show_answer(playback: Playback) -> I420 | None:
    """Publish what an answer holds; returns its only picture, None when abandoned."""
    count, shown = 0, None
    try:
        for picture in playback.source.pictures():
            count, shown = count + 1, picture.i420()
            if not playback.show(shown):
                return None
    except SourceLost:
        if count != 1:  # FFmpeg takes the end of an answer without Content-Length for a failure
            raise
    if playback.is_abandoned:
        return None
    if count > 1:
        raise SourceLost("the stream ended")
    if shown is None:
        if playback.source.corrupt:
            raise SourceLost("the answer's picture cannot be decoded", hint=_UNDECODABLE)
        raise SourceLost("the answer held no picture")
    return shown
