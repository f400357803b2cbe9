"""Commands to a relay that runs: how it is, another face, pause and resume."""

import asyncio
import json
from typing import Annotated

import typer

from relayd import remote
from relayd.errors import ExitCode

app = typer.Typer()
face_app = typer.Typer(help="The face that a running relay puts on.", no_args_is_help=True)
app.add_typer(face_app, name="face")

RelayName = Annotated[str | None, typer.Option("--relay", help="Its name, where several run.")]


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Its name, where several run.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell how a running relay is; ends with 0 only if frames flow as configured."""
    told = asyncio.run(remote.ask(remote.find_socket(name), "/api/status"))
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        for what, words in remote.in_words(told):
            typer.echo(f"{what:10} {words}")
    raise typer.Exit(ExitCode.CLEAN if told["healthy"] else ExitCode.FAILED)


@face_app.command("set")
def face_set(
    image: Annotated[str, typer.Argument(help="http(s) URL that the service can fetch.")],
    landmarks: Annotated[str, typer.Option(help="Which face, as `faces detect` prints it.")] = "",
    relay: RelayName = None,
) -> None:
    """Put another face on, at once and within the running session."""
    body = {"image": image, "landmarks": landmarks}
    asyncio.run(remote.ask(remote.find_socket(relay), "/api/face", body))


@app.command()
def pause(relay: RelayName = None) -> None:
    """Close the session of a running relay and show standby until `resume`."""
    asyncio.run(remote.ask(remote.find_socket(relay), "/api/pause", {}))


@app.command()
def resume(relay: RelayName = None) -> None:
    """Let a running relay go on; also ends its wait for the next try."""
    asyncio.run(remote.ask(remote.find_socket(relay), "/api/resume", {}))
