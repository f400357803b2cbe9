"""The session store without RTC or a face swap."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relayd.clock import MonotonicClock
from relayd.emulator.sessions import (
    KEPT_ENDED,
    EndReason,
    SessionRules,
    SessionStatus,
    SessionStore,
)


class NoSwapper:
    def __init__(self, face: str) -> None:
        self.face = face

    def set_face(self, face: str) -> None:
        self.face = face

    def swap(self, i420: Any) -> tuple[Any, bool]:
        return i420, False


async def test_ended_sessions_are_forgotten_even_behind_one_that_stays_open() -> None:
    with ThreadPoolExecutor(1) as executor:
        store: SessionStore[str] = SessionStore(
            SessionRules(),
            clock=MonotonicClock(),
            executor=executor,
            make_swapper=NoSwapper,
            alter_picture=lambda _session, _source, swapped: swapped,
            charge=lambda _seconds: None,
        )
        long_lived = store.create("face", 0)
        newest = long_lived
        for _ in range(KEPT_ENDED + 5):
            newest = store.create("face", 0)
            await store.end(newest, SessionStatus.SUCCESS, EndReason.CLOSED)
        assert len(store.ended()) == KEPT_ENDED
        assert store.get(newest.id) is newest
        assert store.open() == [long_lived]
        await store.close()
