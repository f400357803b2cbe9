"""The whole emulator: account, sessions, faults, images and the endpoints."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relayd import logs
from relayd.clock import Clock, MonotonicClock
from relayd.emulator.account import Account, AccountRules
from relayd.emulator.admin import Admin
from relayd.emulator.api import AkoolApi
from relayd.emulator.faults import FaultBoard
from relayd.emulator.images import ImageStore
from relayd.emulator.rtc import RtcGate
from relayd.emulator.sessions import SessionRules, SessionStore
from relayd.emulator.swap import FaceSwapper, SourceFace
from relayd.http.client import HttpClient
from relayd.logs import LogEvent

SWEEP_INTERVAL = 1.0
"""s between two checks for sessions to end."""
FACE_THREADS = 2
"""Still images processed at once."""


class Emulator:
    """The emulator; `app` answers requests between entering and leaving the context."""

    def __init__(
        self,
        *,
        account: AccountRules,
        sessions: SessionRules,
        admin_anywhere: bool,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or MonotonicClock()
        self._executor = ThreadPoolExecutor(FACE_THREADS, thread_name_prefix="relayd-faces")
        self._http = HttpClient()
        self.account = Account(account, clock)
        self.faults = FaultBoard(clock)
        self.images = ImageStore()
        self.sessions: SessionStore[SourceFace] = SessionStore(
            sessions,
            clock=clock,
            executor=self._executor,
            make_swapper=FaceSwapper,
            alter_picture=self.faults.apply_to_picture,
            charge=self.account.charge,
        )
        self._gate = RtcGate(self.sessions, self.faults)
        api = AkoolApi(
            self.account, self.sessions, self.faults, self.images, self._executor, self._http
        )
        admin = Admin(self.account, self.sessions, self.faults, self.images, admin_anywhere)
        self.app = Starlette(
            routes=[*api.routes(), self._gate.routes(), *admin.routes()],
            exception_handlers={Exception: _internal_error},
        )
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep(), name="relayd-sweep")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self.sessions.close()
        await self._gate.close()
        await self._http.close()
        self._executor.shutdown()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            await self.sessions.sweep()


async def _internal_error(request: Request, fault: Exception) -> Response:
    logs.get("emulator").error(
        LogEvent.EMULATOR_REQUEST_FAILED, path=request.url.path, exc_info=fault
    )
    return JSONResponse({"code": 1015, "msg": "Create failed, internal error"}, 500)
