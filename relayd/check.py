"""`relayd check`: tries each thing that `run` needs, and says what mends what is wrong."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from relayd.akool.doubts import KEPT_FOR
from relayd.config import CameraSettings, Settings, StreamSettings, state_directory
from relayd.errors import ExitCode, LibraryUnavailable, RelaydError, SourceError, Unavailable
from relayd.frames import SourceFrame
from relayd.http import HttpClient
from relayd.logs import redact
from relayd.media.encode import is_push
from relayd.namelock import NameLock
from relayd.output import v4l2
from relayd.output.camera import CameraOutput
from relayd.output.openings import PROBE
from relayd.output.readers import best_sight
from relayd.output.standby import StandbyArtist
from relayd.relay.policy import is_on_demand
from relayd.rtc.kinds import require_link, worker_environment
from relayd.rtc.link import LinkEvent
from relayd.rtc.process import RtcWorker
from relayd.service import connect, open_journal
from relayd.sessions import doubtful_words, unreadable_words
from relayd.slots import LatestSlot
from relayd.source.events import SourceDown, SourceEvent, SourceOpened
from relayd.source.reader import SourceReader
from relayd.urls import service_url

SOURCE_TIMEOUT = 15.0
"""s to the source's first picture: an RTSP camera may take 10 s to its next key frame."""
LIBRARY_TIMEOUT = 20.0
"""s to load the RTC library; a cold disk takes a few."""
FETCH_TIMEOUT = 5.0
"""s for a look whether an address answers."""


class Verdict(Enum):
    """How a check came out."""

    OK = "ok"
    """Works."""
    WARNING = "warning"
    """Works, or may work; worth a look."""
    FAILED = "failed"
    """`run` would not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    part: str
    verdict: Verdict
    why: str
    mend: str = ""
    exit_code: ExitCode = ExitCode.CLEAN

    @classmethod
    def ok(cls, part: str, why: str) -> Self:
        """It works; `why` says what was seen."""
        return cls(part, Verdict.OK, why)

    @classmethod
    def warning(cls, part: str, why: str, mend: str = "") -> Self:
        """It may work."""
        return cls(part, Verdict.WARNING, why, mend)

    @classmethod
    def failed(cls, part: str, fault: RelaydError | str, code: ExitCode = ExitCode.CONFIG) -> Self:
        """It does not work; a RelaydError brings its own mend and exit code."""
        if isinstance(fault, RelaydError):
            return cls(part, Verdict.FAILED, fault.message, fault.mend, fault.exit_code)
        return cls(part, Verdict.FAILED, fault, "", code)

    @property
    def is_failure(self) -> bool:
        """Whether `run` would not work."""
        return self.verdict is Verdict.FAILED

    def as_line(self) -> str:
        """One line for a person."""
        mend = f"\n           -> {self.mend}" if self.mend else ""
        return f"{self.verdict.value:8} {self.part}: {self.why}{mend}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a program."""
        return {
            **asdict(self),
            "verdict": self.verdict.value,
            "why": redact(self.why),
            "mend": redact(self.mend),
            "exit_code": int(self.exit_code),
        }


async def run_checks(settings: Settings, name: str) -> list[Finding]:
    """Try everything in turn; a check that fails keeps none of the others from being tried.

    `name` is the relay's name, as `run` would give it.
    """
    findings: list[Finding] = []
    checks: list[tuple[str, Callable[[Settings], Awaitable[list[Finding]]]]] = [
        ("journal", _check_journal),
        ("name", lambda settings: _check_name(settings, name)),
        ("rtc", _check_rtc),
        ("service", _check_service),
        ("face", _check_face),
        ("source", _check_source),
        ("output", _check_outputs),
        ("standby", _check_standby),
    ]
    for part, check in checks:
        try:
            findings += await check(settings)
        except RelaydError as fault:
            findings.append(Finding.failed(part, fault))
    return findings


async def _check_journal(settings: Settings) -> list[Finding]:
    journal = open_journal(settings)
    await asyncio.to_thread(journal.probe)
    contents = await asyncio.to_thread(journal.contents)
    doubts = await asyncio.to_thread(journal.doubts, time.time() - KEPT_FOR)
    found = []
    if left := [record.id for record in contents.records if not record.held]:
        why = f"{len(left)} session(s) left open: {', '.join(left)}"
        found.append(Finding.warning("journal", why, "relayd sessions close, or start the relay"))
    if contents.unreadable:
        why = unreadable_words(contents.unreadable)
        found.append(Finding.warning("journal", why, "relayd sessions list says what to do"))
    if unknown := [doubt for doubt in doubts if not doubt.held]:
        why, mend = doubtful_words(unknown), "look at your account at the service"
        found.append(Finding.warning("journal", why, mend))
    return found or [Finding.ok("journal", "can be written; nothing is left open")]


async def _check_name(settings: Settings, name: str) -> list[Finding]:
    directory = state_directory(settings)
    holder = await asyncio.to_thread(NameLock(directory, name).holder)
    if holder is None:
        return []
    why = f"{str(directory)!r} is in use by a running relay {name!r} ({holder})"
    return [Finding.warning("journal", why, "a second `relayd run` of this name would not start")]


async def _check_rtc(settings: Settings) -> list[Finding]:
    library = require_link(settings.rtc.kind)
    took = await asyncio.to_thread(_load_in_worker, settings)
    return [Finding.ok("rtc", f"{library} loads in {took:.1f} s")]


def _load_in_worker(settings: Settings) -> float:
    """Load the link's library where `run` does, in a worker process; gives the seconds."""
    said: SimpleQueue[LinkEvent] = SimpleQueue()
    worker = RtcWorker(
        settings.video.geometry,
        kind=settings.rtc.kind,
        environment=worker_environment(settings.rtc.kind),
        on_event=said.put,
        on_picture=lambda _frame: None,
    )
    began = time.monotonic()
    worker.start()
    try:
        first = said.get(timeout=LIBRARY_TIMEOUT)
    except Empty:
        raise LibraryUnavailable(
            f"the library for {settings.rtc.kind} does not load within {LIBRARY_TIMEOUT:g} s"
        ) from None
    finally:
        worker.stop(within=1.0)
    if first.error is not None:
        raise first.error
    return time.monotonic() - began


async def _check_service(settings: Settings) -> list[Finding]:
    async with connect(settings) as client:
        await client.check_credentials()
        credit = await client.credit()
    left = "" if credit is None else f"; credit left: {credit:g}"
    url = service_url(settings.akool.base_url.reveal())
    found = [Finding.ok("service", f"{url} takes the credentials{left}")]
    if credit is not None and credit <= 0:
        found.append(Finding.warning("service", "no credit is left", "top up the account"))
    return found


async def _check_face(settings: Settings) -> list[Finding]:
    found = []
    try:
        async with HttpClient() as http:
            url = settings.face.image.reveal()
            answer = await http.request("GET", url, timeout=FETCH_TIMEOUT, largest=32 * 1024 * 1024)
        if answer.status >= 400:  # noqa: PLR2004 - HTTP's errors
            found.append(_unseen_face(f"HTTP {answer.status}"))
    except RelaydError as fault:
        found.append(_unseen_face(fault.message))
    async with connect(settings) as client:
        faces = await client.detect_faces(settings.face.image.reveal())
    if settings.face.landmarks:
        return [*found, Finding.ok("face", "landmarks are set")]
    if len(faces) != 1:
        seen = "no face" if not faces else f"{len(faces)} faces"
        mend = (
            "choose a picture with one clear face"
            if not faces
            else "set [face] landmarks to one of: " + "; ".join(face.landmarks for face in faces)
        )
        return [
            *found,
            Finding("face", Verdict.FAILED, f"{seen} in [face] image", mend, ExitCode.CONFIG),
        ]
    return [*found, Finding.ok("face", f"one face, landmarks {faces[0].landmarks}")]


def _unseen_face(why: str) -> Finding:
    return Finding.warning(
        "face",
        f"this machine cannot fetch [face] image: {why}",
        "only the service has to; make sure that it can",
    )


async def _check_source(settings: Settings) -> list[Finding]:
    events: list[SourceEvent] = []
    slot: LatestSlot[SourceFrame] = LatestSlot()
    video = settings.video
    reader = SourceReader(settings.source, video.geometry, video.fit, slot, events.append)

    def first_event() -> SourceEvent | None:
        reader.start()
        try:
            deadline = time.monotonic() + SOURCE_TIMEOUT
            while not events and time.monotonic() < deadline:
                time.sleep(0.05)
            return events[0] if events else None
        finally:
            reader.stop()

    name = settings.source.url
    match await asyncio.to_thread(first_event):
        case SourceOpened(width, height, fps, codec):
            return [Finding.ok("source", f"{name}: {codec} {width}x{height} at {fps:g} fps")]
        case SourceDown(error):
            return [Finding.failed("source", error)]
        case _:
            fault = SourceError(f"{name}: no picture within {SOURCE_TIMEOUT:g} s")
            return [Finding.failed("source", fault)]


async def _check_outputs(settings: Settings) -> list[Finding]:
    return [
        await asyncio.to_thread(_check_camera, output, settings)
        if isinstance(output, CameraSettings)
        else _check_stream(output)
        for output in settings.output
    ]


def _check_camera(output: CameraSettings, settings: Settings) -> Finding:
    camera = CameraOutput(output.device, settings.video.geometry, settings.video.fps)
    try:
        camera.open()
        if is_on_demand(settings):
            return _check_sight(camera.name)
        return Finding.ok("camera", f"{camera.name} can be written")
    except RelaydError as fault:
        return Finding.failed("camera", fault)
    finally:
        camera.close()


def _check_sight(device: str) -> Finding:
    """Say how the readers of an open camera are seen: sessions on demand go by them."""
    now = time.monotonic()
    try:
        with closing(best_sight(device, v4l2.Linux(), now)) as sight:
            if sight.look(now + PROBE) is not None:
                return Finding.ok("camera", f"{device} can be written; {sight.words}")
            why = "programs that we may not look into have cameras open"
    except OSError as fault:
        why = fault.strerror or str(fault)
    return Finding.warning(
        "camera",
        f"{device} can be written; who reads it cannot be seen ({why}):"
        " on demand is off, a session stays open all the time",
    )


def _check_stream(output: StreamSettings) -> Finding:
    name, url = output.url, output.url.reveal()
    if is_push(url):
        return Finding.ok("stream", f"{name} will be pushed to; not tried now")
    folder = Path(url).expanduser().resolve().parent
    if not os.access(folder, os.W_OK):
        fault = Unavailable(f"{name}: {folder} cannot be written", mend="choose another folder")
        return Finding.failed("stream", fault)
    return Finding.ok("stream", f"{name} can be written")


async def _check_standby(settings: Settings) -> list[Finding]:
    StandbyArtist(settings.video.geometry, settings.privacy.standby_image)
    if settings.privacy.fallback == "raw":
        why = 'fallback = "raw" shows the true face whenever the swap is away'
        return [Finding.warning("privacy", why, 'set [privacy] fallback = "standby"')]
    return []
