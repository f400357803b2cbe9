"""The differences between the PyAV versions that relayd runs on, 16 to 19, and nothing else.

pip installs PyAV 18 on Python 3.11, which 19 no longer supports, and 19 from Python 3.12 on. No
other module checks the version: each difference has a function here that documents the versions
and the reason. `make test-debian13` runs its tests on 18 and on 19.

Not handled here: up to 18 an output's opening and closing hold the interpreter lock (see
relayd.media.encode). relayd does not treat 19 differently there.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, SupportsFloat, cast

import av
import av.container.core
import av.error
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

_MAJOR: Final = int(av.__version__.partition(".")[0])
_FIRST_WITH_ARGUMENT_ERROR: Final = 17
_FIRST_THAT_ASKS_THE_TIME: Final = 17
_LAST_WITH_METADATA_ERRORS: Final = 18
_LAST_WITH_STREAM_OVERRUN: Final = 17

INVALID_ARGUMENT: Final[type[Exception]] = getattr(
    av.error, "ArgumentError" if _MAJOR >= _FIRST_WITH_ARGUMENT_ERROR else "ValueError"
)
"""The exception for FFmpeg's EINVAL: in 16 it is PyAV's own `ValueError`."""


def metadata_arguments(major: int = _MAJOR) -> dict[str, str]:
    """Return the arguments of `av.open` that prevent an error for a title in Latin-1.

    Up to 18 titles have to be UTF-8 unless `metadata_errors` says otherwise. 19 always behaves
    as requested here, and has no such argument.
    """
    return {"metadata_errors": "surrogateescape"} if major <= _LAST_WITH_METADATA_ERRORS else {}


def option_arguments(options: dict[str, str], major: int = _MAJOR) -> dict[str, dict[str, str]]:
    """Return the argument of `av.open` that passes options to FFmpeg.

    Up to 17 `options` makes PyAV free memory that it does not own where a stream appears only
    while the container is looked at (FLV, MPEG-PS, MPEG-TS). There they are for the container
    alone, and not for the decoders that FFmpeg looks at it with.
    """
    return {"container_options" if major <= _LAST_WITH_STREAM_OVERRUN else "options": options}


def tls_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options by which each FFmpeg treats certificates as the user's `options` say.

    Up to 18 (FFmpeg 8) none is verified unless `tls_verify` says so; 19 (FFmpeg 9) verifies by
    default. The wheels look for a CA store where Debian has none, so that none is ever trusted.
    So on each version: not verified by default, as cameras sign their certificates themselves;
    where it is asked for, with this machine's CA store unless `ca_file` names one.
    FFmpeg's HLS does not hand these options on to its segments; relayd.media.hls does.
    """
    if not verifies_tls(options):
        return {"tls_verify": "0"}
    has_store = "ca_file" in options or "cafile" in options
    store = next((path for path in _ca_stores() if path and Path(path).is_file()), "")
    return {"ca_file": store} if store and not has_store else {}


def verifies_tls(options: Mapping[str, str]) -> bool:
    """Whether a user's options ask for certificates to be verified."""
    return any(options.get(name, "0") != "0" for name in ("tls_verify", "verify"))


def _ca_stores() -> tuple[str | None, ...]:
    """Return where this machine's CA store may be, the first that exists counts."""
    return (
        os.environ.get("SSL_CERT_FILE"),
        "/etc/ssl/certs/ca-certificates.crt",
        ssl.get_default_verify_paths().cafile,
    )


def open_input(
    file: object,
    *,
    format: str | None,  # noqa: A002  # PyAV's own name
    options: dict[str, str],
    timeout: tuple[SupportsFloat, SupportsFloat],
    io_open: Callable[[str, int, dict[str, str]], object] | None = None,
) -> InputContainer:
    """Open a container for reading: `av.open` with arguments that every version accepts.

    `file` is a URL or a file-like object; `timeout` is in seconds, to open and to read, and is
    asked for its value at the beginning of each call. `io_open` gets URL, flags and options of
    each file that a demuxer asks for, and returns it as a file-like object.
    Raises what `av.open` raises.
    """
    # PyAV's types do not know that it takes what has a __float__.
    arguments: dict[str, Any] = {"timeout": timeout}
    arguments |= metadata_arguments() | option_arguments(tls_options(options) | options)
    if io_open is not None:
        arguments["io_open"] = io_open
    container = av.open(file, "r", format=format, **arguments)
    return cast("InputContainer", container)


def use_clock(now: Callable[[], float]) -> None:
    """Let PyAV compare its time limits with `now`, monotonic seconds.

    From 17 on PyAV asks the module `time` for it each time; 16 keeps the function that it found
    when it was imported, and is not changed.
    """
    if _MAJOR >= _FIRST_THAT_ASKS_THE_TIME:
        vars(av.container.core)["time"] = SimpleNamespace(monotonic=now)


def one_thread_graph() -> Graph:
    """Return a filter graph that runs in the caller's thread.

    16 and 17.0 have no such setting, and start a thread for each processor.
    """
    graph = Graph()
    if hasattr(graph, "threads"):
        graph.threads = 1
    return graph


def discard(stream: Stream) -> None:
    """Tell the demuxer that the packets of a stream are not wanted, so that it leaves them out.

    16 and 17 have no such setting; their packets are read and then dropped.
    """
    if hasattr(stream, "discard"):
        from av.stream import Discard  # noqa: PLC0415  # since 18

        stream.discard = Discard.all


def primaries_and_curve(frame: VideoFrame, context: VideoCodecContext) -> tuple[int, int]:
    """Return the primaries and the transfer curve of a picture, as in ITU-T H.273.

    16 has them only for the whole stream.
    """
    marked = frame if hasattr(frame, "color_trc") else context
    return int(marked.color_primaries), int(marked.color_trc)


def copy_colours(source: VideoFrame, target: VideoFrame) -> None:
    """Let a picture state the same colours as another one; in 16, matrix and range only."""
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def stated_field_order(context: VideoCodecContext) -> int:
    """Return the order of fields as the container states it, FFmpeg's AVFieldOrder; 0: unknown.

    16 does not have it.
    """
    return int(getattr(context, "field_order", 0))


DISPLAY_MATRIX: Final[int] = cast("Any", Type.DISPLAYMATRIX).value
"""FFmpeg's number of this kind of side data."""


def display_matrix(frame: VideoFrame) -> list[int] | None:
    """Return the nine entries of a picture's display matrix; None if it has none.

    Up to 18 accessing any side data frees the metadata of all of it twice, so that a colour
    profile crashes the process: `frame` may have no other side data (see relayd.media.matrix).
    Raises ValueError for a kind that PyAV does not know, such as EXIF.
    """
    matrix = cast("Any", frame.side_data).get(Type.DISPLAYMATRIX)
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).tolist()


def number(rational: SupportsFloat | None) -> float:
    """Return a rate, time base or aspect as a float; 0.0 where it is not set.

    Up to 18 PyAV returns a Fraction, or None where it is not set. From 19 on it returns its own
    type, which is false where it is not set: 0/1, 0/0 or 1/0.
    """
    return float(rational) if rational else 0.0
