"""Commands to a running relay: status, face, pause, resume, mute and unmute."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from relayd.commands import remote
from relayd.config.loading import load
from relayd.control import lookup
from relayd.errors import ExitCode, UsageError

app = typer.Typer()
face_app = typer.Typer(help="The face that a running relay puts on.", no_args_is_help=True)
app.add_typer(face_app, name="face")

RelayName = Annotated[str | None, typer.Option("--relay", help="Its name, where several run.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Its TOML file, instead of its name.")
]
Socket = Annotated[Path | None, typer.Option("--socket", help="Its control socket, instead.")]


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Its name, where several run.")] = None,
    *,
    config: ConfigFile = None,
    socket: Socket = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a running relay's status and its page's URL; exits with 0 only if frames flow.

    Exits with 3 if no relay runs.
    """
    relay = _find(name, config, socket)
    status_now, page = asyncio.run(remote.fetch_status_and_page(relay))
    if as_json:
        typer.echo(json.dumps(status_now, indent=2))
    else:
        for what, text in remote.describe_status(status_now):
            typer.echo(f"{what:10} {text}")
        if page:
            typer.echo(f"{'page':10} {page}")
    raise typer.Exit(ExitCode.CLEAN if status_now["healthy"] else ExitCode.FAILED)


@face_app.command("set")
def face_set(
    image: Annotated[str, typer.Argument(help="http(s) URL that the service can fetch.")],
    landmarks: Annotated[str, typer.Option(help="Which face, as `faces detect` prints it.")] = "",
    relay: RelayName = None,
    config: ConfigFile = None,
    socket: Socket = None,
) -> None:
    """Put another face on, at once and within the running session."""
    found = _find(relay, config, socket)
    status_now = asyncio.run(
        remote.send_command(found, "/api/face", {"image": image, "landmarks": landmarks})
    )
    typer.echo(remote.outcome("face changed", status_now))


@app.command()
def pause(relay: RelayName = None, config: ConfigFile = None, socket: Socket = None) -> None:
    """Close the session of a running relay and show standby until `resume`."""
    status_now = asyncio.run(remote.send_command(_find(relay, config, socket), "/api/pause"))
    typer.echo(remote.outcome("paused", status_now))


@app.command()
def resume(relay: RelayName = None, config: ConfigFile = None, socket: Socket = None) -> None:
    """Let a running relay go on; also ends its wait for the next try."""
    status_now = asyncio.run(remote.send_command(_find(relay, config, socket), "/api/resume"))
    typer.echo(remote.outcome("resumed", status_now))


@app.command()
def mute(relay: RelayName = None, config: ConfigFile = None, socket: Socket = None) -> None:
    """Silence the sound of a running relay until `unmute`; pictures go on."""
    status_now = asyncio.run(remote.send_command(_find(relay, config, socket), "/api/mute"))
    typer.echo(remote.outcome("muted", status_now))


@app.command()
def unmute(relay: RelayName = None, config: ConfigFile = None, socket: Socket = None) -> None:
    """Let the sound of a running relay be heard again; what was said meanwhile is not."""
    status_now = asyncio.run(remote.send_command(_find(relay, config, socket), "/api/unmute"))
    typer.echo(remote.outcome("unmuted", status_now))


def _find(name: str | None, config: Path | None, socket: Path | None) -> lookup.FoundRelay:
    """Find the relay that the command line names; places without permission go to stderr.

    Raises UsageError if it is named twice, ConfigError of its file, and as `lookup.choose`.
    """
    if sum(one is not None for one in (name, config, socket)) > 1:
        raise UsageError("the relay is named twice", hint="give its name, -c FILE or --socket PATH")
    if socket is not None:
        return lookup.relay_at(socket)
    if config is not None:
        name = config.stem
        if own := load(config).control.socket:
            return lookup.relay_at(Path(own).expanduser(), name)
    found = lookup.find_relays()
    relay = lookup.choose(found, name)
    if name is None:
        for place in found.hidden:
            sys.stderr.write(f"relayd: could not look into {place}\n")
    return relay
