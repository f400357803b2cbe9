"""Commands on sessions: list those that may be open at the service, and close them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from relayd.config.loading import load
from relayd.errors import UsageError

app = typer.Typer(help="Sessions that the journal holds.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="The relay's TOML file; default: none.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key.")
]


@app.command("list")
def list_(
    config: ConfigFile = None,
    overrides: Overrides = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sessions that are or may be open, and the time spent in the last 30 days."""
    from relayd.commands.open_sessions import read_report  # noqa: PLC0415 - loads the service's client

    found = read_report(load(config, overrides or ()))
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        for line in found.as_lines():
            typer.echo(line)


@app.command()
def close(
    session: Annotated[
        str | None, typer.Argument(help="Its id; default: all orphaned sessions.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Close one that is not on the journal without asking.")
    ] = False,
) -> None:
    """Close sessions that a relay left open; those of a running relay are left alone."""
    from relayd.commands.open_sessions import close_sessions  # noqa: PLC0415 - loads the service's client

    def confirm(question: str) -> bool:
        return yes or _ask(question)

    settings = load(config, overrides or ())
    raise typer.Exit(int(asyncio.run(close_sessions(settings, session, typer.echo, confirm))))


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Cannot ask: stdin is not a terminal", hint="give --yes")
    return typer.confirm(question)
