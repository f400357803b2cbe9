"""Checks of the media side: source, cameras and streams."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from relayd.commands import remote
from relayd.commands.check_voice import PATIENCE, describe, loudest
from relayd.commands.finding import Finding
from relayd.config.paths import control_socket
from relayd.config.settings import CameraSettings, MicrophoneSettings, Settings, StreamSettings
from relayd.control import lookup
from relayd.errors import OutputError, RelaydError, SourceError
from relayd.media.frames import SourceFrame
from relayd.media.slots import LatestSlot
from relayd.media.srt import shows_secret
from relayd.output.camera import CameraOutput
from relayd.output.device_choice import is_path
from relayd.output.open_tracker import PROBE
from relayd.output.readers import best_reader_counter
from relayd.output.recording import Part
from relayd.relay.policy import is_on_demand
from relayd.relay.status import OUTPUT_OK
from relayd.sound.blocks import OwnSound
from relayd.sound.ring import SoundRing
from relayd.source.events import SourceDown, SourceEvent, SourceOpened
from relayd.source.option_names import unknown_options
from relayd.source.progress import longest_start
from relayd.source.reader import SourceReader
from relayd.urls.safe import MediaUrl
from relayd.urls.targets import is_push, waits_for_caller
from relayd.v4l2 import calls

CONNECT_TIMEOUT = 5.0
"""s for a stream's receiver to accept a connection."""
PUSH_PORTS = {"rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322, "tcp": None}
"""Default ports of the schemes that use TCP: a connection shows whether anything listens."""


async def check_source(settings: Settings, relay: str) -> list[Finding]:
    """Read one picture from the source; `relay` is the relay's name.

    Takes as long as the source's own limits allow, see `longest_start`.
    """
    limit = longest_start(settings.source)
    events: list[SourceEvent] = []
    slot: LatestSlot[SourceFrame] = LatestSlot()
    video = settings.video
    hears = settings.wants_sound and settings.sound.source == "auto"
    ring: SoundRing[OwnSound] | None = SoundRing(PATIENCE) if hears else None
    heard: list[Finding] = []
    reader = SourceReader(
        settings.source,
        video.geometry,
        video.fit,
        slot,
        events.append,
        turn=video.turn,
        fps=video.fps,
        sound=ring,
    )

    def first_event() -> SourceEvent | None:
        reader.start()
        try:
            deadline = time.monotonic() + limit
            while not events and time.monotonic() < deadline:
                time.sleep(0.05)
            if ring is not None and events and isinstance(events[0], SourceOpened):
                found = reader.sound.format
                heard.append(describe(found, loudest(ring, PATIENCE) if found else None))
            return events[0] if events else None
        finally:
            reader.stop()

    name = settings.source.url
    match await asyncio.to_thread(first_event):
        case SourceOpened(width, height, fps, codec, kind):
            seen = f"{name}: {kind}, {codec} {width}x{height} at {fps:g} fps"
            found = Finding.ok("source", seen)
            return [found, *heard, *_exposed_source(name), *_unknown_options(settings)]
        case SourceDown(error):
            found = Finding.failed("source", error)
        case _:
            fault = SourceError(f"{name}: no picture within {limit:g} s")
            found = Finding.failed("source", fault)
    found = await _unless_in_use(found, settings, relay, partial(_has_source, settings))
    return [found, *_unknown_options(settings)]


def _unknown_options(settings: Settings) -> list[Finding]:
    source = settings.source
    return [
        Finding.warning("source", f"unknown option {unknown.name}", unknown.hint)
        for unknown in unknown_options(source.url.reveal(), source.options)
    ]


def _exposed_source(url: MediaUrl) -> list[Finding]:
    if not shows_secret(url.reveal()):
        return []
    why = f"{url}: every user of this machine can read its passphrase and streamid, as an argument"
    hint = "hide processes of others from them: mount /proc with hidepid=invisible"
    return [Finding.warning("source", f"{why} of the program ffmpeg", hint)]


async def check_outputs(settings: Settings, relay: str) -> list[Finding]:
    """Open each camera and file, and connect to each stream's receiver."""
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
        if not isinstance(output, MicrophoneSettings)
    ]


async def _unless_in_use(
    found: Finding, settings: Settings, relay: str, has_it: Callable[[remote.Status], bool]
) -> Finding:
    """Turn a failure into a warning if a running relay uses the same part successfully.

    A capture device, a camera and many receivers serve one client at a time.
    """
    if not found.is_failure:
        return found
    try:
        path = control_socket(settings, relay)
        status = await remote.fetch_status(await asyncio.to_thread(lookup.relay_at, path, relay))
    except RelaydError:  # no relay runs, or it does not answer
        return found
    if not has_it(status):
        return found
    why = f"{found.why}; but the running relay {relay!r} has it, and it works there"
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
    """Report how readers of an open camera are counted, as sessions on demand need it."""
    now = time.monotonic()
    try:
        with closing(best_reader_counter(device, calls.Linux(), now)) as counter:
            if counter.count(now + PROBE) is not None:
                return Finding.ok("camera", f"{device} can be written; {counter.description}")
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
        part = Part.create(url, settings.video.bitrate)
    except RelaydError as fault:
        return Finding.failed("stream", fault)
    part.close(is_empty=True)
    file = str(part.path)
    is_new = file == str(Path(url).expanduser())
    return Finding.ok("stream", f"{name} can be written{'' if is_new else f', as {file}'}")


def _check_push(url: str, name: str) -> Finding:
    """Connect to the receiver of a stream, and send nothing."""
    if waits_for_caller(url):
        return Finding.ok("stream", f"{name} waits for a client to connect; not tried now")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port or PUSH_PORTS.get(scheme)
    if scheme not in PUSH_PORTS or parts.hostname is None or port is None:
        return Finding.ok("stream", f"{name} will be pushed to; not tried now")
    try:
        with socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT):
            return Finding.ok("stream", f"{name} accepts connections; nothing was sent")
    except OSError as fault:
        is_name = isinstance(fault, socket.gaierror) or not fault.errno
        why = (fault.strerror or str(fault)) if is_name else os.strerror(fault.errno or 0)
        raise OutputError(
            f"{name}: {why}", hint="start what receives it, or change the URL"
        ) from fault
