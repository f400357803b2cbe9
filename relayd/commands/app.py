"""The command line: its errors and exit codes, and the commands that start or check a relay.

Each command reads its settings, calls one module and ends with its exit code. Commands to a running
relay are in relayd.commands.running, those for the computer in relayd.commands.machine.
"""

import asyncio
import json
import os
import re
import secrets
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from relayd import __version__, logs
from relayd.commands import machine, running, sessions
from relayd.commands.finding import Finding
from relayd.config.loading import exposed, load
from relayd.config.requirements import require_runnable
from relayd.config.settings import Settings
from relayd.config.variables import ignored
from relayd.errors import ConfigError, ExitCode, InternalFault, RelaydError, UsageError
from relayd.logs import LogEvent
from relayd.process import limits, stdio
from relayd.process.hardening import forbid_dumps
from relayd.urls.quoting import plain_name, plain_names_in, quoted


class _Group(TyperGroup):
    """Commands whose error messages repeat no secret of the command line."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Parse our own options."""
        with _without_secrets():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Parse and run a command."""
        with _without_secrets():
            return super().invoke(ctx)


_IN_BRACKETS = re.compile(r"\(([^()\s]{6,})\)")
"""How click quotes a superfluous argument, which may be a pasted key."""


@contextmanager
def _without_secrets() -> Iterator[None]:
    try:
        yield
    except Exception as fault:
        if hasattr(fault, "format_message"):  # a usage error of click or of typer's copy
            message = logs.redact(vars(fault).get("message", ""))
            vars(fault)["message"] = _IN_BRACKETS.sub(
                lambda found: f"({plain_name(found[1])})", plain_names_in(message)
            )
        raise


app = typer.Typer(
    cls=_Group,
    help="Relays a video source through a live face swap into a virtual webcam.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
faces_app = typer.Typer(help="Faces in an image, as the service sees them.", no_args_is_help=True)
app.add_typer(faces_app, name="faces")
app.add_typer(sessions.app, name="sessions")
app.add_typer(running.app)
app.add_typer(machine.app)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The relay's TOML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key.")
]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]
_EXPOSED = (
    "every user of this machine can read the secret in its URL; write it in the file or environment"
)
LOG_LEVELS = ("debug", "info", "warning", "error")


def main() -> NoReturn:
    """Run the command line; every known failure becomes one plain line and its exit code."""
    stdio.open_missing()
    stdio.escape_unprintable()
    forbid_dumps()
    logs.configure("error")
    logs.report_uncaught()
    try:
        app(standalone_mode=True)
    except RelaydError as fault:
        _print_error(fault)
        sys.exit(fault.exit_code)
    except Exception as fault:  # noqa: BLE001 - users get no traceback
        logs.get("cli").debug(LogEvent.INTERNAL_FAULT, exc_info=True)
        refusal = limits.error_for(fault) or InternalFault.of(
            fault, hint="a fault of relayd; --log-level debug shows where"
        )
        _print_error(refusal)
        sys.exit(refusal.exit_code)
    sys.exit(ExitCode.CLEAN)


def _print_error(fault: RelaydError) -> None:
    lines = fault.faults if isinstance(fault, ConfigError) else [str(fault)]
    with suppress(OSError):  # a full disk: the exit code still tells
        for line in lines:
            sys.stderr.write(f"relayd: {logs.redact(line)}\n")


def _exit(code: int) -> NoReturn:
    raise typer.Exit(int(code))


def _set_up_logs(level: str) -> None:
    if level not in LOG_LEVELS:
        raise UsageError(f"--log-level {quoted(level)}: give one of {', '.join(LOG_LEVELS)}")
    logs.configure(level)


def _run_async(job: Coroutine[Any, Any, int]) -> NoReturn:
    _exit(asyncio.run(job))


@app.callback(invoke_without_command=True)
def _root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        typer.echo(f"relayd {__version__}")
        raise typer.Exit


@app.command()
def demo(
    *,
    source: Annotated[
        str, typer.Option(help="A source of your own: file, rtsp://, /dev/videoN.")
    ] = "",
    face: Annotated[str, typer.Option(help="A face of your own: image file or http(s) URL.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the local page; 0: any.")] = 8642,
    seconds: Annotated[
        float, typer.Option(min=0, help="End after so many seconds; 0: at Ctrl-C.")
    ] = 0,
    record: Annotated[
        Path | None, typer.Option(help="Write the result to a file, like out.mp4.")
    ] = None,
    no_camera: Annotated[
        bool, typer.Option("--no-camera", help="Leave the virtual camera alone.")
    ] = False,
    no_microphone: Annotated[
        bool, typer.Option("--no-microphone", help="Offer no virtual microphone.")
    ] = False,
    log_level: LogLevel = "warning",
) -> None:
    """Swap a face live on this machine, with no account: emulator, relay and page in one."""
    from relayd.commands.demo import DemoOptions, run_demo  # noqa: PLC0415 - loads media libraries

    _set_up_logs(log_level)
    options = DemoOptions(
        source,
        face,
        port,
        seconds,
        record,
        use_camera=not no_camera,
        use_microphone=not no_microphone,
    )
    _run_async(run_demo(options))


@app.command()
def run(
    config: ConfigFile,
    *,
    overrides: Overrides = None,
    require_outputs: Annotated[
        bool,
        typer.Option("--require-outputs", help="End if a camera cannot be opened at the start."),
    ] = False,
    log_level: LogLevel = "info",
) -> None:
    """Run a relay in the foreground, as systemd wants it."""
    from relayd.commands.run import run_daemon  # noqa: PLC0415 - loads media libraries
    from relayd.media.srt import shows_secret  # noqa: PLC0415 - as above
    from relayd.source.option_names import unknown_options  # noqa: PLC0415 - as above

    def read() -> Settings:
        settings = load(config, overrides or ())
        require_runnable(settings)
        return settings

    _set_up_logs(log_level)
    settings = read()
    if names := exposed(overrides or ()):
        logs.get("config").warning(LogEvent.COMMAND_LINE_SECRET, names=names, hint=_EXPOSED)
    if shows_secret(settings.source.url.reveal()):
        hint = "ffmpeg takes it as an argument; mount /proc with hidepid=invisible"
        logs.get("config").warning(
            LogEvent.SOURCE_SECRET_READABLE, url=settings.source.url, hint=hint
        )
    for unknown in unknown_options(settings.source.url.reveal(), settings.source.options):
        logs.get("config").warning(
            LogEvent.SOURCE_OPTION_UNKNOWN, option=unknown.name, hint=unknown.hint
        )
    if foreign := ignored(os.environ):
        logs.get("config").warning(LogEvent.ENVIRONMENT_IGNORED, names=foreign, hint="not ours")
    _run_async(run_daemon(settings, config.stem, read, require_outputs=require_outputs))


@app.command()
def check(
    config: ConfigFile,
    *,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try each part that `run` needs, and say what is wrong and how to fix it."""
    from relayd.commands.check import run_checks  # noqa: PLC0415 - loads media libraries

    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            typer.echo(logs.redact(finding.as_line()))

    try:
        settings = load(config, overrides or ())
        require_runnable(settings)
    except ConfigError as fault:
        for line in fault.faults:
            report(Finding.failed("config", line))
    else:
        report(Finding.ok("config", str(config)))
        if names := exposed(overrides or ()):
            report(Finding.warning("command line", f"--set {', '.join(names)}: {_EXPOSED}"))
        if foreign := ignored(os.environ):
            report(Finding.warning("environment", f"ignored, not ours: {', '.join(foreign)}"))
        asyncio.run(run_checks(settings, config.stem, report))
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    _exit(next((found.exit_code for found in findings if found.is_failure), ExitCode.CLEAN))


@faces_app.command("detect")
def faces_detect(url: str, config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the landmarks of the faces in an image, for `face.landmarks`."""
    from relayd.akool.connect import detect_faces  # noqa: PLC0415 - loads media libraries

    faces = asyncio.run(detect_faces(load(config, overrides or ()), url))
    for face in faces:
        typer.echo(face.landmarks)
    if not faces:
        sys.stderr.write(f"relayd: no face in {logs.redact(url)}\n")
        _exit(ExitCode.FAILED)


@app.command()
def emulator(
    *,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8700,
    queue_seconds: Annotated[
        float, typer.Option(min=0, help="How long a new session waits for its turn.")
    ] = 1.0,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="RELAYD_EMULATOR_API_KEY", help="Accept this key, no other; default: any."
        ),
    ] = None,
    credit: Annotated[float, typer.Option(min=0, help="Credit of the account.")] = 1000.0,
    admin_anywhere: Annotated[
        bool, typer.Option("--admin-anywhere", help="Accept admin requests from other machines.")
    ] = False,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", hidden=True, help="End when stdin does.")
    ] = False,
    log_level: LogLevel = "warning",
) -> None:
    """Run the local stand-in of the service alone: its API, WebRTC and a CPU face swap."""
    from relayd.emulator import server  # noqa: PLC0415 - only this command needs it
    from relayd.emulator.account import AccountRules  # noqa: PLC0415 - as above
    from relayd.emulator.sessions import SessionRules  # noqa: PLC0415 - as above

    _set_up_logs(log_level)
    # If only this key is accepted, a client id and secret must not open another way in.
    client_secret = secrets.token_urlsafe() if api_key else ""
    if with_parent:
        Thread(target=_end_with_stdin, name="relayd-parent", daemon=True).start()
    _exit(
        server.run(
            server.EmulatorSettings(
                host=host,
                port=port,
                account=AccountRules(
                    api_keys=tuple(api_key or ()), client_secret=client_secret, credit=credit
                ),
                sessions=SessionRules(queue_seconds=queue_seconds),
                admin_anywhere=admin_anywhere,
            )
        )
    )


def _end_with_stdin() -> None:
    """Ask this process to end once its parent has closed stdin, or died."""
    while os.read(sys.stdin.fileno(), 4096):  # sys.stdin's lock would break the shutdown
        pass
    os.kill(os.getpid(), signal.SIGTERM)
