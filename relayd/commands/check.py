"""`relayd check`: tries each thing that `run` needs, and says how to fix what is wrong."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from relayd.akool.connect import connect, open_journal
from relayd.akool.doubts import KEPT_FOR
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.commands import remote
from relayd.commands.finding import Finding
from relayd.commands.open_sessions import describe_doubtful, describe_unreadable
from relayd.config.settings import (
    CameraSettings,
    Settings,
    StreamSettings,
    control_socket,
    state_directory,
)
from relayd.control import lookup
from relayd.control.endpoints import prepared_socket
from relayd.control.server import try_to_bind
from relayd.errors import (
    ConfigError,
    InternalFault,
    LibraryUnavailable,
    OutputError,
    RelaydError,
    SourceError,
    Unavailable,
)
from relayd.http.client import HttpClient
from relayd.media.frames import SourceFrame
from relayd.media.slots import LatestSlot
from relayd.media.srt import shows_secret
from relayd.output import v4l2
from relayd.output.camera import CameraOutput
from relayd.output.device_choice import is_path
from relayd.output.open_tracker import PROBE
from relayd.output.readers import best_reader_counter
from relayd.output.recording import Part
from relayd.output.standby import StandbyRenderer
from relayd.process import limits
from relayd.process.name_lock import NameLock
from relayd.relay.policy import is_on_demand
from relayd.relay.status import OUTPUT_OK
from relayd.rtc.kinds import require_link, worker_environment
from relayd.rtc.link import LinkEvent
from relayd.rtc.process import RtcWorker
from relayd.source.events import SourceDown, SourceEvent, SourceOpened
from relayd.source.reader import SourceReader
from relayd.urls.safe import MediaUrl, service_url
from relayd.urls.targets import is_push, waits_for_caller

SOURCE_TIMEOUT = 15.0
"""s to the source's first picture: an RTSP camera may take 10 s to its next key frame."""
LIBRARY_TIMEOUT = 20.0
"""s to load the RTC library; a cold disk takes a few."""
FETCH_TIMEOUT = 5.0
"""s for a look whether an address answers."""
PART_TIMEOUT = 20.0
"""s that any part may take, with its repeated tries; what takes longer is given up."""
PUSH_PORTS = {"rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322, "tcp": None}
"""Ports of the schemes that go over TCP, so that a connection tells whether anybody listens."""


async def run_checks(
    settings: Settings, name: str, on_finding: Callable[[Finding], None] = lambda _finding: None
) -> list[Finding]:
    """Try each part in turn; one that fails keeps none of the others from being tried.

    `name` is the relay's name, as `run` would give it; `on_finding` is told each as it is known.
    """
    findings: list[Finding] = []

    def note(found: list[Finding]) -> None:
        for finding in found:
            findings.append(finding)
            on_finding(finding)

    for part in PARTS:
        if part == "face" and any(
            found.part == "service" and found.is_failure for found in findings
        ):
            note(
                [Finding.warning("face", "not tried, as the service does not answer as it should")]
            )
        else:
            note(await check_part(part, settings, name))
    return findings


async def check_part(part: str, settings: Settings, name: str) -> list[Finding]:
    """Try one of PARTS with what `run` has for it."""
    try:
        async with asyncio.timeout(PART_TIMEOUT):
            return await PARTS[part](settings, name)
    except TimeoutError:
        fault = Unavailable(f"given up after {PART_TIMEOUT:g} s without an answer")
        return [Finding.failed(part, fault)]
    except ConfigError as fault:
        return [Finding.failed(part, line) for line in fault.faults]
    except RelaydError as fault:
        return [Finding.failed(part, fault)]
    except Exception as fault:  # noqa: BLE001 - the other parts are tried all the same
        return [Finding.failed(part, limits.named(fault) or InternalFault.of(fault))]


async def _check_journal(settings: Settings, _name: str) -> list[Finding]:
    journal = open_journal(settings)
    await asyncio.to_thread(journal.probe)
    contents = await asyncio.to_thread(journal.contents)
    doubts = await asyncio.to_thread(journal.doubts, time.time() - KEPT_FOR)
    found = []
    if left := [record.id for record in contents.records if not record.held]:
        why = f"{len(left)} session(s) left open: {', '.join(left)}"
        found.append(Finding.warning("journal", why, "relayd sessions close, or start the relay"))
    if contents.unreadable:
        why = describe_unreadable(contents.unreadable)
        found.append(Finding.warning("journal", why, "relayd sessions list says what to do"))
    if unknown := [doubt for doubt in doubts if not doubt.held]:
        why, hint = describe_doubtful(unknown), "look at your account at the service"
        found.append(Finding.warning("journal", why, hint))
    return found or [Finding.ok("journal", "can be written; nothing is left open")]


async def _check_name(settings: Settings, name: str) -> list[Finding]:
    directory = state_directory(settings)
    holder = await asyncio.to_thread(NameLock(directory, name).holder)
    if holder is None:
        return []
    why = f"{str(directory)!r} is in use by a running relay {name!r} ({holder})"
    hint = "nothing, where that one is meant: `relayd run` of this name is refused until it ends"
    return [Finding.warning("name", why, hint)]


async def _check_rtc(settings: Settings, _name: str) -> list[Finding]:
    library = require_link(settings.rtc.kind)
    took = await asyncio.to_thread(_load_in_worker, settings)
    return [Finding.ok("rtc", f"{library} loads in {took:.1f} s")]


def _load_in_worker(settings: Settings) -> float:
    """Load the link's library where `run` does, in a worker process; returns the seconds."""
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


async def _check_service(settings: Settings, _name: str) -> list[Finding]:
    async with connect(settings) as client:
        await client.check_credentials()
        credit = await client.credit()
    left = "" if credit is None else f"; credit left: {credit:g}"
    url = service_url(settings.akool.base_url.reveal())
    found = [Finding.ok("service", f"{url} takes the credentials{left}")]
    if credit is not None and credit <= 0:
        found.append(Finding.warning("service", "no credit is left", "top up the account"))
    return found


async def _check_face(settings: Settings, name: str) -> list[Finding]:
    found = []
    face = FaceChoice(settings.face.image.reveal(), settings.face.landmarks)
    try:
        async with HttpClient() as http:
            answer = await http.request(
                "GET",
                settings.face.image.reveal(),
                timeout=FETCH_TIMEOUT,
                largest=32 * 1024 * 1024,
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
    words = "landmarks are set" if face.landmarks else f"one face, landmarks {landmarks}"
    return [*found, Finding.ok("face", words)]


def _unseen_face(why: str) -> Finding:
    return Finding.warning(
        "face",
        f"this machine cannot fetch [face] image: {why}",
        "only the service has to; make sure that it can",
    )


async def _check_source(settings: Settings, relay: str) -> list[Finding]:
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
            found = Finding.ok("source", f"{name}: {codec} {width}x{height} at {fps:g} fps")
            return [found, *_exposed_source(name)]
        case SourceDown(error):
            found = Finding.failed("source", error)
        case _:
            fault = SourceError(f"{name}: no picture within {SOURCE_TIMEOUT:g} s")
            found = Finding.failed("source", fault)
    return [await _unless_in_use(found, settings, relay, partial(_has_source, settings))]


def _exposed_source(url: MediaUrl) -> list[Finding]:
    if not shows_secret(url.reveal()):
        return []
    why = f"{url}: every user of this machine can read its passphrase and streamid, as an argument"
    hint = "hide processes of others from them: mount /proc with hidepid=invisible"
    return [Finding.warning("source", f"{why} of the program ffmpeg", hint)]


async def _check_outputs(settings: Settings, relay: str) -> list[Finding]:
    return [
        await _unless_in_use(
            await asyncio.to_thread(_check_camera, output, settings)
            if isinstance(output, CameraSettings)
            else await asyncio.to_thread(_check_stream, output, settings),
            settings,
            relay,
            partial(_has_output, output),
        )
        for output in settings.output
    ]


async def _unless_in_use(
    found: Finding, settings: Settings, relay: str, has_it: Callable[[remote.Status], bool]
) -> Finding:
    """Turn a failure into a warning where the relay that runs has what is tried, and it works.

    A capture device, a camera and many a receiver serve one at a time.
    """
    if not found.is_failure:
        return found
    try:
        path = control_socket(settings, relay)
        status = await remote.fetch_status(await asyncio.to_thread(lookup.relay_at, path, relay))
    except RelaydError:  # none runs, or none that could be asked
        return found
    if not has_it(status):
        return found
    why = f"{found.why}; but the running relay {relay!r} has it, and there it works"
    return Finding.warning(found.part, why)


def _has_source(settings: Settings, status: remote.Status) -> bool:
    return bool(status["source_alive"]) and status["source"] == str(settings.source.url)


def _has_output(output: CameraSettings | StreamSettings, status: remote.Status) -> bool:
    working = {name for name, how in status["outputs"].items() if how == OUTPUT_OK}
    if isinstance(output, StreamSettings):
        return is_push(output.url.reveal()) and str(output.url) in working
    if is_path(output.device):
        return output.device in working
    return any(name.startswith("/dev/video") for name in working)


def _check_camera(output: CameraSettings, settings: Settings) -> Finding:
    camera = CameraOutput(output.device, settings.video.geometry, settings.video.fps)
    try:
        camera.open()
        if is_on_demand(settings):
            return _check_reader_counter(camera.name)
        return Finding.ok("camera", f"{camera.name} can be written")
    except RelaydError as fault:
        return Finding.failed("camera", fault)
    finally:
        camera.close()


def _check_reader_counter(device: str) -> Finding:
    """Say how the readers of an open camera are seen: sessions on demand go by them."""
    now = time.monotonic()
    try:
        with closing(best_reader_counter(device, v4l2.Linux(), now)) as sight:
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


def _check_stream(output: StreamSettings, settings: Settings) -> Finding:
    name, url = str(output.url), output.url.reveal()
    try:
        if is_push(url):
            return _check_push(url, name)
        part = Part.begin(url, settings.video.bitrate)
    except RelaydError as fault:
        return Finding.failed("stream", fault)
    part.close(is_empty=True)
    file = str(part.path)
    is_new = file == str(Path(url).expanduser())
    return Finding.ok("stream", f"{name} can be written{'' if is_new else f', as {file}'}")


def _check_push(url: str, name: str) -> Finding:
    """Knock where a stream goes to; what is sent there is none of a check's business."""
    if waits_for_caller(url):
        return Finding.ok("stream", f"{name} will wait for whoever connects; not tried now")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port or PUSH_PORTS.get(scheme)
    if scheme not in PUSH_PORTS or parts.hostname is None or port is None:
        return Finding.ok("stream", f"{name} will be pushed to; not tried now")
    try:
        with socket.create_connection((parts.hostname, port), FETCH_TIMEOUT):
            return Finding.ok("stream", f"{name} takes connections; nothing was sent")
    except OSError as fault:
        is_name = isinstance(fault, socket.gaierror) or not fault.errno
        why = (fault.strerror or str(fault)) if is_name else os.strerror(fault.errno or 0)
        raise OutputError(
            f"{name}: {why}", hint="start what receives it, or change the URL"
        ) from fault


async def _check_control(settings: Settings, name: str) -> list[Finding]:
    if await asyncio.to_thread(NameLock(state_directory(settings), name).holder):
        return []  # a relay of this name has them; the part name says so
    path = await asyncio.to_thread(prepared_socket, settings, name)
    await try_to_bind(path, settings.control.address)
    where = " and ".join(str(one) for one in (path, settings.control.http) if one)
    return [Finding.ok("control", f"{where} can be served")]


async def _check_standby(settings: Settings, _name: str) -> list[Finding]:
    StandbyRenderer(settings.video.geometry, settings.privacy.standby_image)
    if settings.privacy.fallback == "raw":
        why = 'fallback = "raw" shows the true face whenever the swap is away'
        return [Finding.warning("privacy", why, 'set [privacy] fallback = "standby"')]
    return []


PARTS: Mapping[str, Callable[[Settings, str], Awaitable[list[Finding]]]] = {
    "journal": _check_journal,
    "name": _check_name,
    "control": _check_control,
    "rtc": _check_rtc,
    "service": _check_service,
    "face": _check_face,
    "source": _check_source,
    "output": _check_outputs,
    "standby": _check_standby,
}
"""Each part that `run` needs, in the order in which they are tried."""
