"""A swap engine of one line: sends back each picture of the front user, inverted."""

import asyncio
import threading
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from tests.agora.caller import Caller
from tests.agora.cloud import FRONT
from tests.agora.pictures import Picture

ENGINE = "3"
GLANCE = 0.005
"""s between two looks for a picture."""
KEY_FRAME_EVERY = 0.2
"""s between two requests for a key frame while none comes."""
READY = 5.0
"""s that it may take to be in the channel."""


class Inverter:
    """The algorithm user of one channel, on a thread of its own while the context lasts."""

    def __init__(
        self, hub: str, *, app_id: str, channel: str, token: str, sound: bool = False
    ) -> None:
        self.sound = sound
        """Whether it sends the front user's sound back as well, inverted; may change."""
        self._join = partial(
            Caller.join, hub, app_id=app_id, channel=channel, uid=ENGINE, token=token
        )
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.swapped = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(READY)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with self._join() as caller:
            await caller.event("connected")
            caller.send("publish", "video")
            caller.send("subscribe", FRONT)
            caller.send("subscribe_sound", FRONT, 0)
            self._ready.set()
            idle, self._is_sounding = 0, False
            while not self._stop.is_set():
                await asyncio.sleep(GLANCE)
                idle += 1
                self._switch_sound(caller)
                self._send_back_sound(caller)
                if idle % round(KEY_FRAME_EVERY / GLANCE) == 1:
                    caller.send("intra", FRONT)
                if caller.pictures:
                    idle = 0
                    picture = caller.pictures[-1]
                    caller.pictures.clear()
                    swapped = 255 - np.frombuffer(picture.payload, np.uint8)
                    caller.push(Picture(picture.width, picture.height, 0, swapped.tobytes()))
                    self.swapped += 1

    def _switch_sound(self, caller: Caller) -> None:
        if self.sound != self._is_sounding:
            caller.send("publish" if self.sound else "unpublish", "audio")
            self._is_sounding = self.sound

    def _send_back_sound(self, caller: Caller) -> None:
        for heard in caller.sounds if self.sound else ():
            samples = np.frombuffer(heard.payload, np.int16)
            caller.say((-samples).tobytes(), rate=heard.rate, channels=heard.channels)
        caller.sounds.clear()
