"""`relayd demo`: emulator, relay and page in one command, with no account.

The emulator runs as a process of its own, as it would on another machine; the relay is the same as
in `relayd run`, with settings that point to the emulator.
"""

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from relayd.akool.connect import connect, open_journal
from relayd.commands.lip_sync import LipSyncMeter
from relayd.config.loading import load_tree
from relayd.config.settings import MicrophoneSettings, Settings, VideoSettings
from relayd.control.api import Pictures, build_app
from relayd.control.server import ControlServer
from relayd.errors import (
    AddressUnavailable,
    CameraUnavailable,
    ExitCode,
    LibraryUnavailable,
    MicrophoneUnavailable,
    OutputError,
    ServiceError,
    UsageError,
)
from relayd.http.client import HttpClient
from relayd.logs import redact
from relayd.media.delay import Spread
from relayd.output.camera import CameraOutput
from relayd.output.microphone import make_microphone
from relayd.output.preview import Preview, SourcePreview
from relayd.process.child import Child
from relayd.process.environment import python_environment
from relayd.process.lines import LineReader, LineTooLong
from relayd.process.signals import stopped_by_signals
from relayd.relay.relay import Relay
from relayd.relay.status import RelayState, RelayStatus
from relayd.urls.targets import format_of

MEDIA = Path(__file__).parents[1] / "emulator" / "media"
EMULATOR_START = 30.0
"""s for the emulator to start: loading OpenCV from a cold disk takes 5 s."""
EMULATOR_STOP = 5.0
"""s for the emulator to end by itself."""
POLL_PERIOD = 0.5
"""s between two checks for a stop while the emulator starts."""
MAX_URL_LINE = 4096
"""Bytes of the line in which the emulator prints its URL."""
DEMO_KEY = "demo"
"""An API key for an emulator that accepts any."""
_MICROPHONE = MicrophoneSettings(kind="microphone", device="auto", name="relayd demo microphone")
"""Beside that of a relay that may run on this machine."""
KEY_VARIABLE = "RELAYD_EMULATOR_API_KEY"
"""Variable with the emulator's key: other users can read a command line, not the environment."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the command line."""

    source: str
    face: str
    port: int
    seconds: float
    record: Path | None
    use_camera: bool
    use_microphone: bool


async def run_demo(options: DemoOptions) -> int:
    """Run the demo for its time or until Ctrl-C; returns the exit code."""
    console = Console(stderr=True, highlight=False)
    _require_recordable(options.record)
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        # With the key anybody could play the session, which may show the true face.
        key = secrets.token_urlsafe()
        service = await stack.enter_async_context(emulator(key))
        face = await upload_face(options.face, service)
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="relayd-demo-"))
        outputs = _outputs(
            options,
            camera=_camera(options, console),
            microphone=await asyncio.to_thread(_microphone, options, console),
        )
        settings = settings_for(service, face, options.source, outputs, state, key=key, sound=True)
        client = await stack.enter_async_context(connect(settings))
        preview = Preview(settings.video.geometry)
        # Only the demo's own clip has the lamp to measure at.
        lip_sync = None if options.source else LipSyncMeter(settings.video.geometry)
        relay = Relay(
            settings,
            "demo",
            client,
            open_journal(settings),
            more_outputs=[preview, lip_sync] if lip_sync else [preview],
            on_change=_ConsoleReporter(console),
        )
        source = SourcePreview(relay.pipeline.source, settings.video.geometry)
        app = build_app(
            relay,
            relay.metrics,
            Pictures(preview, source),
            lip_sync=lip_sync.offset if lip_sync else None,
        )
        server = ControlServer(app, None, ("127.0.0.1", options.port))
        await _start(server, options.port)
        stack.push_async_callback(server.stop)
        console.print(f"watch it:  {server.page_url}", markup=False, soft_wrap=True)
        console.print("(the URL is yours alone: it holds the page's token; Ctrl-C ends)")
        time_over = asyncio.Event()

        def end() -> None:
            time_over.set()
            stop.set()

        if options.seconds:
            asyncio.get_running_loop().call_later(options.seconds, end)
        await relay.run(stop)
        status = relay.status()
    _print_summary(status, lip_sync.offset() if lip_sync else Spread())
    failed = time_over.is_set() and not status.frames["fresh"]
    return ExitCode.UNAVAILABLE if failed else ExitCode.CLEAN


async def _start(server: ControlServer, port: int) -> None:
    try:
        await server.start()
    except AddressUnavailable as fault:
        raise AddressUnavailable(
            f"--port {port}: {fault.message}", hint="--port 0 takes any free one"
        ) from fault


@asynccontextmanager
async def emulator(key: str = "") -> AsyncIterator[str]:
    """Run an emulator on a free port while the block runs; yields its URL.

    It accepts only `key`, or any key if that is empty.
    """
    # -P: do not import from the current folder.
    command = [sys.executable, "-P", "-m", "relayd", "emulator", "--port", "0", "--with-parent"]
    process = await asyncio.to_thread(_start_emulator, command, key)
    try:
        url = await _url_of(process)
        if not url:
            raise LibraryUnavailable(
                "the emulator did not start", hint='pip install "relayd[emulator]"'
            )
        yield url
    finally:
        process.stdin.close()  # which ends the emulator
        await asyncio.to_thread(process.end, EMULATOR_STOP)
        process.stdout.close()


def _start_emulator(command: Sequence[str], key: str) -> Child:
    try:
        return Child.start(
            command,
            environment=python_environment() | {KEY_VARIABLE: key},
            with_stdin=True,
            with_stdout=True,
        )
    except OSError as fault:
        raise LibraryUnavailable(f"the emulator cannot be started: {fault.strerror}") from fault


async def _url_of(emulator: Child) -> str:
    """Wait for the line with the emulator's URL; returns an empty text if there is none."""
    output = LineReader(emulator.stdout.fileno(), largest=MAX_URL_LINE)
    deadline = time.monotonic() + EMULATOR_START
    while not output.at_end and time.monotonic() < deadline:
        try:
            lines = await asyncio.to_thread(output.read, POLL_PERIOD)
        except LineTooLong:
            return ""
        for line in lines:
            return line.decode("utf-8", "replace").split()[-1] if line.strip() else ""
    return ""


async def upload_face(face: str, service: str) -> str:
    """Return a URL of the face that the service can fetch; a file is uploaded first."""
    if urlsplit(face).scheme in {"http", "https"}:
        return face
    file = Path(face or MEDIA / "portrait.png")
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as fault:
        raise UsageError(f"--face {file}: {fault.strerror}") from fault
    async with HttpClient() as http:
        answer = await http.request(
            "POST",
            f"{service}/emulator/images",
            headers={"content-type": "image/*"},  # the emulator detects the format
            content=content,
        )
    if answer.status != 201:  # noqa: PLR2004 - Created
        raise ServiceError(f"--face {file}: {answer.json().get('error', 'refused')}")
    return str(answer.json()["url"])


def _camera(options: DemoOptions, console: Console) -> bool:
    """Whether a virtual camera can be written; prints how to get one if not."""
    if not options.use_camera:
        return False
    video = VideoSettings()
    camera = CameraOutput("auto", video.geometry, video.fps)
    try:
        camera.open()
    except CameraUnavailable as fault:
        console.print(f"the page alone shows the result: {fault.message}", markup=False)
        if fault.hint:
            console.print(f"  {fault.hint}", markup=False, soft_wrap=True)
        return False
    finally:
        camera.close()
    return True


def _microphone(options: DemoOptions, console: Console) -> bool:
    """Whether a virtual microphone can be offered; prints how to get one if not."""
    if not options.use_microphone:
        return False
    microphone = make_microphone(_MICROPHONE, lambda _name, _listeners: None)
    try:
        microphone.open()
    except MicrophoneUnavailable as fault:
        console.print(f"no program can hear the voice: {fault.message}", markup=False)
        if fault.hint:
            console.print(f"  {fault.hint}", markup=False, soft_wrap=True)
        return False
    finally:
        microphone.close()
    return True


def _require_recordable(record: Path | None) -> None:
    try:
        if record:
            format_of(str(record))
    except OutputError as fault:
        raise UsageError(f"--record: {fault.message}", hint=fault.hint) from fault


def _outputs(options: DemoOptions, *, camera: bool, microphone: bool) -> list[dict[str, str]]:
    outputs = [{"kind": "camera", "device": "auto"}] if camera else []
    if microphone:
        outputs.append(_MICROPHONE.model_dump())
    if options.record:
        outputs.append({"kind": "stream", "url": str(options.record)})
    return outputs


def settings_for(
    service: str,
    face: str,
    source: str,
    outputs: list[dict[str, str]],
    state: str,
    *,
    key: str = DEMO_KEY,
    sound: bool = False,
) -> Settings:
    """Return the settings of a relay that uses an emulator; raises ConfigError.

    With `sound` the source's sound is played too.
    """
    route = f"{service}/rtc/{{channel_id}}"
    return load_tree(
        {
            **({"sound": {"source": "auto"}} if sound else {}),
            "source": {"url": source or str(MEDIA / "person.mp4")},
            "face": {"image": face},
            "akool": {"base_url": service, "api_key": key},
            "rtc": {
                "kind": "webrtc",
                "publish_url": f"{route}/{{front_user_id}}/whip",
                "play_url": f"{route}/{{algorithm_user_id}}/whep",
            },
            "on_demand": {"mode": "never"},  # the page has to show a live picture
            "output": outputs,
            "state": {"directory": state},
        }
    )


class _ConsoleReporter:
    """Prints each state to the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, state: RelayState, reason: str) -> None:
        text = f"{state.text}: {reason}" if reason else state.text
        self._console.print(redact(text), markup=False)


def _print_summary(status: RelayStatus, lip_sync: Spread) -> None:
    table = Table(title="What the relay did", box=None, show_header=False, title_justify="left")
    frames, dropped = status.frames, status.dropped
    for name, value in (
        ("ran", f"{status.uptime:.1f} s"),
        ("frames read", frames["source"]),
        ("frames sent", frames["sent"]),
        ("frames swapped", frames["swapped"]),
        (
            "frames shown",
            f"{frames['fresh']} fresh, {frames['repeated']} repeated, {frames['standby']} standby",
        ),
        ("dropped", ", ".join(f"{stage} {count}" for stage, count in dropped.items())),
        ("fps shown", f"{status.fps:.2f}"),
        ("longest gap", f"{status.longest_gap * 1000:.0f} ms"),
        ("delay, glass to glass", _milliseconds(status.delay)),
        ("of it relayd's own", _milliseconds(status.own_delay)),
        ("sound after picture", _lip_sync(lip_sync)),
        ("reconnects", ", ".join(f"{part} {n}" for part, n in status.reconnects.items())),
        ("recorded to", ", ".join(_recorded(status)) or "-"),
    ):
        table.add_row(name, str(value))
    Console(highlight=False).print(table)


def _recorded(status: RelayStatus) -> list[str]:
    return [file for files in status.files.values() for file in files]


def _lip_sync(spread: Spread) -> str:
    if spread.p50 is None or spread.p95 is None:
        return "not measured: no phrase of the demo's clip was seen and heard"
    times = "once" if spread.count == 1 else f"{spread.count} times"
    return f"p50 {spread.p50 * 1000:+.0f} ms, p95 {spread.p95 * 1000:+.0f} ms, measured {times}"


def _milliseconds(spread: Spread) -> str:
    if spread.p50 is None or spread.p95 is None:
        return "not measured: too few frames could be told apart"
    return f"p50 {spread.p50 * 1000:.0f} ms, p95 {spread.p95 * 1000:.0f} ms"
