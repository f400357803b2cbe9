"""What differs between the versions of PyAV that relayd runs on, 16 to 19, and nothing else.

pip takes PyAV 18 on Python 3.11, which 19 no longer supports, and 19 from Python 3.12 on. No
other module asks for the version: what differs has a function here that says in which versions
and why. `make test-debian13` runs the tests of it on 18 and on 19.

Known, and left as it is: up to 18 an output's opening and closing hold the interpreter lock
(see relayd.media.encode), and looking at a picture's side data may end the process (see
relayd.media.fit). Neither is done differently on 19.
"""

from typing import Any, Final, SupportsFloat, cast

import av
import av.error
from av.container import InputContainer
from av.filter import Graph

_MAJOR: Final = int(av.__version__.partition(".")[0])
_FIRST_WITH_ARGUMENT_ERROR: Final = 17
_FIRST_WITH_GRAPH_THREADS: Final = 17
_LAST_WITH_METADATA_ERRORS: Final = 18

INVALID_ARGUMENT: Final[type[Exception]] = getattr(
    av.error, "ArgumentError" if _MAJOR >= _FIRST_WITH_ARGUMENT_ERROR else "ValueError"
)
"""What FFmpeg's EINVAL is raised as: 16 calls it ValueError, of PyAV's own."""


def metadata_arguments(major: int = _MAJOR) -> dict[str, str]:
    """Return the arguments of `av.open` that keep a title in Latin-1 from stopping a film.

    Up to 18 titles have to be UTF-8, unless `metadata_errors` names what to do with the rest.
    19 always does what this asks of the others, and has no such argument.
    """
    return {"metadata_errors": "surrogateescape"} if major <= _LAST_WITH_METADATA_ERRORS else {}


def open_input(
    file: object,
    *,
    format: str | None,  # noqa: A002  # PyAV's own word
    options: dict[str, str],
    timeout: tuple[float, float],
) -> InputContainer:
    """Open a container for reading: `av.open` with what every version takes.

    `file` is a URL or a file-like object; `timeout` is in seconds, to open and to read.
    Raises what `av.open` raises.
    """
    arguments: dict[str, Any] = metadata_arguments()
    container = av.open(file, "r", format=format, options=options, timeout=timeout, **arguments)
    return cast("InputContainer", container)


def one_thread_graph() -> Graph:
    """Return a filter graph that works in the caller's thread.

    16 cannot say so, and starts a thread for each processor.
    """
    graph = Graph()
    if _MAJOR >= _FIRST_WITH_GRAPH_THREADS:
        graph.threads = 1
    return graph


def number(rational: SupportsFloat | None) -> float:
    """Return a rate, time base or aspect as a float; 0.0 where it is not set.

    Up to 18 PyAV gives a Fraction, or None where it is not set. From 19 on it gives a kind of
    its own, which is false where it is not set, be it 0/1, 0/0 or 1/0.
    """
    return float(rational) if rational else 0.0
