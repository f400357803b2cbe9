"""A line to the hub for whoever controls it."""

import json
import socket
from threading import Lock
from types import TracebackType
from typing import Any, Self

from tests.agora.wire import encode

TIMEOUT = 10.0
"""s that an answer may take on a busy machine."""


class Refused(Exception):
    """The hub cannot do what it was asked for, and says why."""


class Control:
    """A blocking connection of kind `control`; from any thread."""

    def __init__(self, hub: str) -> None:
        """Connect to the hub at this path."""
        self._lock = Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.connect(hub)
            self._socket.sendall(encode("control"))
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def ask(self, do: str, **words: Any) -> Any:
        """Have something done and give its result; Refused says in words why not."""
        wish = json.dumps({"do": do, **words}).encode("ascii") + b"\n"
        with self._lock:
            self._socket.sendall(wish)
            line = self._answers.readline()
        if not line:
            raise Refused("the hub is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
