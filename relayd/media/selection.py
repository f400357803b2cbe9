"""Selects the video stream of an open container, and reads what it states about its pictures."""

from collections.abc import Collection
from typing import Final

from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from relayd.media import compat
from relayd.media.fit import StreamFacts
from relayd.media.refusals import no_decoder, no_video
from relayd.media.streams import Candidate, StreamWish, choose_stream, is_tiled

_COVERS: Final = Disposition.attached_pic | Disposition.timed_thumbnails
_CAPTURE_DEMUXERS: Final = frozenset({"video4linux2,v4l2", "lavfi"})


def select_stream(container: InputContainer, wish: StreamWish, name: str) -> VideoStream:
    """Return the stream to show.

    Raises SourceUnusable when there is none; `name` is the source in its message.
    """
    candidates = [_candidate(stream) for stream in container.streams.video]
    number = choose_stream(candidates, wish, name)
    if number is None:
        if all(one.is_cover for one in candidates):
            raise no_video(name, {stream.type for stream in container.streams})
        still = container.format.name.removesuffix("_pipe")
        raise no_decoder(name, still if still != container.format.name else "")
    return container.streams.video[number]


def discard_others(container: InputContainer, kept: Collection[int]) -> None:
    """Let the demuxer leave out all streams but those of the indices `kept`."""
    for stream in container.streams:
        if stream.index not in kept:
            compat.discard(stream)


def shows_tiles(container: InputContainer, wish: StreamWish) -> bool:
    """Whether what is to be shown is a picture that lies in tiles in several streams."""
    return wish == "best" and is_tiled([_candidate(stream) for stream in container.streams.video])


def _candidate(stream: VideoStream) -> Candidate:
    # A stream without a decoder has no codec context, despite PyAV's types.
    context = getattr(stream, "codec_context", None)
    return Candidate(
        context.width if context else 0,
        context.height if context else 0,
        stream.frames,
        is_default=bool(stream.disposition & Disposition.default),
        is_cover=bool(stream.disposition & _COVERS),
        is_part=bool(stream.disposition & Disposition.dependent),
        is_decodable=context is not None,
    )


class StreamFactsReader:
    """Reads what a stream states about its pictures."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        """To be made before the first picture is decoded."""
        self._context = stream.codec_context
        self._made_here = container.format.name in _CAPTURE_DEMUXERS
        container_aspect = compat.number(stream.sample_aspect_ratio)
        is_codecs = container_aspect == compat.number(self._context.sample_aspect_ratio)
        self._container_aspect = 0.0 if is_codecs else container_aspect
        """0 where the container agrees with the codec, which may change it later."""

    def read(self, frame: VideoFrame) -> StreamFacts:
        """Return the facts that count for `frame`, the newest picture decoded."""
        context = self._context
        primaries, curve = compat.primaries_and_curve(frame, context)
        return StreamFacts(
            self._container_aspect or compat.number(context.sample_aspect_ratio),
            primaries,
            curve,
            self._made_here,
        )
