"""Checks of what a session needs: the RTC library, the service and the face."""

import asyncio
import time
from queue import Empty, SimpleQueue

from relayd.akool.connect import connect, open_journal
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.commands.finding import Finding
from relayd.config.settings import Settings
from relayd.errors import LibraryUnavailable, RelaydError
from relayd.http.client import HttpClient
from relayd.rtc.kinds import require_link, worker_environment
from relayd.rtc.link import LinkEvent
from relayd.rtc.process import RtcWorker
from relayd.urls.safe import service_url

LIBRARY_TIMEOUT = 20.0
"""s to load the RTC library; a cold disk takes a few."""
FETCH_TIMEOUT = 5.0
"""s to fetch the face's image."""
LARGEST_IMAGE = 32 * 1024 * 1024
"""Bytes of the face's image that are read at most."""


async def check_rtc(settings: Settings, _name: str) -> list[Finding]:
    """Load the RTC library in a worker process."""
    library = require_link(settings.rtc.kind, settings.rtc.engine)
    took = await asyncio.to_thread(_load_in_worker, settings)
    return [Finding.ok("rtc", f"{library} loads in {took:.1f} s")]


def _load_in_worker(settings: Settings) -> float:
    """Load the link's library in a worker process, as `run` does; returns the seconds taken."""
    events: SimpleQueue[LinkEvent] = SimpleQueue()
    worker = RtcWorker(
        settings.video.geometry,
        kind=settings.rtc.kind,
        engine=settings.rtc.engine,
        environment=worker_environment(settings.rtc.kind),
        on_event=events.put,
        on_picture=lambda _frame: None,
    )
    began = time.monotonic()
    worker.start()
    try:
        first = events.get(timeout=LIBRARY_TIMEOUT)
    except Empty:
        raise LibraryUnavailable(
            f"the library for {settings.rtc.kind} does not load within {LIBRARY_TIMEOUT:g} s"
        ) from None
    finally:
        worker.stop(within=1.0)
    if first.error is not None:
        raise first.error
    return time.monotonic() - began


async def check_service(settings: Settings, _name: str) -> list[Finding]:
    """Check credentials and credit at the service."""
    async with connect(settings) as client:
        await client.check_credentials()
        credit = await client.credit()
    left = "" if credit is None else f"; credit left: {credit:g}"
    url = service_url(settings.akool.base_url.reveal())
    found = [Finding.ok("service", f"{url} accepts the credentials{left}")]
    if credit is not None and credit <= 0:
        found.append(Finding.warning("service", "no credit is left", "top up the account"))
    return found


async def check_face(settings: Settings, name: str) -> list[Finding]:
    """Fetch the face's image, and have the service find its landmarks."""
    found = []
    face = FaceChoice(settings.face.image.reveal(), settings.face.landmarks)
    try:
        async with HttpClient() as http:
            answer = await http.request(
                "GET",
                settings.face.image.reveal(),
                timeout=FETCH_TIMEOUT,
                largest=LARGEST_IMAGE,
            )
        if answer.status >= 400:  # noqa: PLR2004 - HTTP's errors
            found.append(_unseen_face(f"HTTP {answer.status}"))
    except RelaydError as fault:
        found.append(_unseen_face(fault.message))
    try:
        async with connect(settings) as client:
            keeper = SessionKeeper(client, open_journal(settings), relay=name)
            landmarks = await keeper.landmarks(face)
    except RelaydError as fault:
        return [*found, Finding.failed("face", fault)]
    text = "landmarks are set" if face.landmarks else f"one face, landmarks {landmarks}"
    return [*found, Finding.ok("face", text)]


def _unseen_face(why: str) -> Finding:
    return Finding.warning(
        "face",
        f"this machine cannot fetch [face] image: {why}",
        "only the service has to; make sure that it can",
    )
