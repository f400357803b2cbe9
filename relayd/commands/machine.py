"""Commands for this computer: its cameras, Agora's SDK, relayd as a service."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from relayd.errors import UsageError

app = typer.Typer()

ForUser = Annotated[bool, typer.Option("--user", help="For you alone, with no root needed.")]
Root = Annotated[Path | None, typer.Option(help="Work below this folder, not on this system.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing; changed files are left alone.")]
ChangedToo = Annotated[bool, typer.Option("--changed-too", help="With --yes: changed files too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show it, do nothing.")]


@app.command()
def devices(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List capture devices with their modes, loopback cameras, and who may use them."""
    from relayd.commands import device_list  # noqa: PLC0415 - loads media libraries
    from relayd.output.device_choice import modprobe  # noqa: PLC0415 - as above
    from relayd.output.devices import list_devices  # noqa: PLC0415 - as above

    found = device_list.look_at(list_devices())
    if as_json:
        typer.echo(json.dumps(device_list.as_records(found), indent=2))
        return
    if not found:
        typer.echo("no video devices; a virtual camera is made by")
        typer.echo(f"  {modprobe()}")
        return
    for line in device_list.as_lines(found):
        typer.echo(line)


@app.command("agora-install")
def agora_install(
    archive: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="The native SDK's zip, fetched already."),
    ] = None,
    wrapper: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The wrapper's .tar.gz from PyPI, fetched already."),
    ] = None,
    require_hash: Annotated[
        str, typer.Option(metavar="SHA256", help="Take a native SDK with this hash only.")
    ] = "",
) -> None:
    """Install Agora's SDK for this Python: its wrapper from PyPI, its native library from Agora."""
    from relayd.rtc.agora.install import install  # noqa: PLC0415 - only this command needs it

    found = install(typer.echo, archive, wrapper=wrapper, require_hash=require_hash)
    typer.echo(f"ready: {found}")


@app.command()
def install(
    *,
    user: ForUser = False,
    root: Root = None,
    yes: Yes = False,
    changed_too: ChangedToo = False,
    dry_run: DryRun = False,
    package: Annotated[bool, typer.Option("--package", hidden=True, help="As a .deb.")] = False,
    command: Annotated[str, typer.Option(help="What units start; default: this relayd.")] = "",
) -> None:
    """Put units, the service's user and the virtual camera's options in place."""
    from relayd.commands.installer import Installer, InstallOptions  # noqa: PLC0415 - as above
    from relayd.commands.system_files import Layout  # noqa: PLC0415 - only this command needs it

    layout = Layout.PACKAGE if package else Layout.USER if user else Layout.SYSTEM
    options = InstallOptions(
        layout, root, command, yes=yes, changed_too=changed_too, dry_run=dry_run
    )
    raise typer.Exit(Installer(options, typer.echo, _ask).install())


@app.command()
def uninstall(
    *,
    user: ForUser = False,
    root: Root = None,
    yes: Yes = False,
    changed_too: ChangedToo = False,
    dry_run: DryRun = False,
) -> None:
    """Remove what `install` put in place; configuration and journal stay."""
    from relayd.commands.installer import Installer, InstallOptions  # noqa: PLC0415 - as above
    from relayd.commands.system_files import Layout  # noqa: PLC0415 - only this command needs it

    layout = Layout.USER if user else Layout.SYSTEM
    options = InstallOptions(layout, root, "", yes=yes, changed_too=changed_too, dry_run=dry_run)
    raise typer.Exit(Installer(options, typer.echo, _ask).uninstall())


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("cannot ask: stdin is not a terminal", hint="give --yes or --dry-run")
    return typer.confirm(question)
