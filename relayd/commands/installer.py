"""`relayd install` and `uninstall`: show what would change, ask, and do it."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from relayd.commands.system_files import (
    FileStatus,
    Installation,
    InstalledFile,
    Layout,
    other_module_options,
    own_command,
    require_visible,
    user_root,
)
from relayd.errors import ExitCode, Unavailable, UsageError
from relayd.process.child import run_to_end
from relayd.process.environment import program_environment

PACKAGED_HOME = "/usr/lib/relayd"
"""Where the .deb keeps its Python environment."""
USER_BUS = "DBUS_SESSION_BUS_ADDRESS"
"""Where `systemctl --user` may find its manager."""
COMMAND_TIMEOUT = 30.0
"""s for a system command; they take well under one."""


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """Options of the command line."""

    layout: Layout
    root: Path | None
    """None: the layout's place on this system."""
    command: str
    """The program that units start; empty: this relayd."""
    yes: bool
    """Ask nothing; locally changed files are left alone."""
    changed_too: bool
    """With `yes`: treat changed files like the others."""
    dry_run: bool


class Installer:
    """Installs or removes files, asking the user unless `--yes` was given."""

    def __init__(
        self,
        options: InstallOptions,
        print_line: Callable[[str], None],
        confirm: Callable[[str], bool],
    ) -> None:
        """Inspect the files in place. Raises Unavailable or UsageError if nothing can be done."""
        self._options, self._print, self._confirm = options, print_line, confirm
        layout = options.layout
        home = user_root() if layout is Layout.USER else Path("/")
        self._is_live = options.root is None and layout is not Layout.PACKAGE
        command = options.command or own_command()
        if self._is_live and sys.prefix == PACKAGED_HOME:
            raise UsageError("this relayd belongs to a package: its files are in place already")
        self._command = command
        self._files = Installation(layout, options.root or home, command)

    def install(self) -> ExitCode:
        """Put new and older files in place."""
        if self._options.layout is Layout.SYSTEM and not self._options.command:
            require_visible(self._command)
        todo = [one for one in self._files.files if one.status is not FileStatus.SAME]
        for one in self._files.files:
            self._show(one)
        for path in other_module_options(self._files.root):
            self._print(f"note      {path} sets options of v4l2loopback as well: they add up")
        chosen = self._choose(todo, "put in place", "replace")
        if not self._may_go_on(chosen):
            return ExitCode.CLEAN
        for one in chosen:
            self._files.write(one)
        self._print(f"{len(chosen)} file(s) put in place")
        code = self._reload_system(_after_install(self._files.files, self._options.layout))
        if self._is_live:
            self._print(_next_steps(self._options.layout))
        return code

    def uninstall(self) -> ExitCode:
        """Remove the files that are in place."""
        there = [one for one in self._files.files if one.status is not FileStatus.ABSENT]
        for one in there:
            self._print(f"{one.status.value:9} {one.path}")
        if self._is_live and (running := list(_running(self._options.layout))):
            raise Unavailable(
                f"relays run: {', '.join(running)}",
                hint=f"{_systemctl(self._options.layout)} disable --now {' '.join(running)}",
            )
        chosen = self._choose(there, "remove", "remove")
        if not self._may_go_on(chosen):
            return ExitCode.CLEAN
        for one in chosen:
            self._files.remove(one)
        self._print(f"{len(chosen)} file(s) removed; configuration, journal and user stay")
        return self._reload_system(_after_uninstall(self._options.layout))

    def _show(self, one: InstalledFile) -> None:
        self._print(f"{one.status.value:9} {one.path}: {one.managed.why}")
        if one.status in (FileStatus.OLDER, FileStatus.CHANGED):
            self._print(one.diff().rstrip())

    def _choose(
        self, todo: Sequence[InstalledFile], doing: str, doing_changed: str
    ) -> list[InstalledFile]:
        """Return the files that may be touched; locally changed ones are asked for one by one."""
        options = self._options
        plain = [one for one in todo if one.status is not FileStatus.CHANGED]
        changed = [one for one in todo if one.status is FileStatus.CHANGED]
        if options.dry_run:
            self._print(
                f"{len(plain)} file(s) to {doing}, {len(changed)} changed; nothing was done"
            )
            return []
        if plain and not options.yes and not self._confirm(f"{doing} {len(plain)} file(s)?"):
            plain = []
        for one in changed:
            if options.yes and not options.changed_too:
                self._print(
                    f"kept      {one.path}: it was changed here (--changed-too takes it too)"
                )
            elif options.yes or self._confirm(
                f"{doing_changed} {one.path}, which was changed here?"
            ):
                plain.append(one)
        return plain

    def _may_go_on(self, chosen: Sequence[InstalledFile]) -> bool:
        """Whether there is anything to do; raises Unavailable if root is needed."""
        if not chosen:
            if not self._options.dry_run:
                self._print("nothing to do")
            return False
        if self._is_live and self._options.layout is Layout.SYSTEM and os.geteuid() != 0:
            command = " ".join(["sudo", own_command(), *sys.argv[1:]])
            raise Unavailable("only root may change /etc", hint=command)
        return True

    def _reload_system(self, commands: Sequence[Sequence[str]]) -> ExitCode:
        """Run the commands that apply the change; a failed one is shown with its output."""
        code = ExitCode.CLEAN
        for command in commands if self._is_live else ():
            if shutil.which(command[0]) is None:
                continue
            status, output, errors = _run(command)
            self._print(f"ran       {' '.join(command)}")
            if status:
                self._print(f"failed    {(errors or output).strip()}")
                code = ExitCode.FAILED
        return code


def _run(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a system command; one that hangs or cannot be started counts as failed."""
    bus = {name: value for name, value in os.environ.items() if name == USER_BUS}
    try:
        return run_to_end(command, timeout=COMMAND_TIMEOUT, environment=program_environment() | bus)
    except OSError as fault:  # TimeoutError is one
        return 1, "", str(fault)


def _next_steps(layout: Layout) -> str:
    """Return what the user has to do after an install."""
    where, key = (
        ("~/.config/relayd/NAME.toml", "or api_key in that file")
        if layout is Layout.USER
        else ("/etc/relayd/NAME.toml", "and the key into /etc/credstore/akool-api-key, mode 0600")
    )
    return (
        "next:  sudo modprobe v4l2loopback\n"
        f"       your configuration into {where}, {key}\n"
        f"       {_systemctl(layout)} enable --now relayd@NAME"
    )


def _after_install(placed: Sequence[InstalledFile], layout: Layout) -> list[list[str]]:
    if layout is Layout.USER:
        return [["systemctl", "--user", "daemon-reload"]]
    path = {one.managed.source: str(one.path) for one in placed}
    return [
        ["systemd-sysusers", path["config/sysusers.d/relayd.conf"]],
        ["systemd-tmpfiles", "--create", path["config/tmpfiles.d/relayd.conf"]],
        ["systemctl", "daemon-reload"],
        ["udevadm", "control", "--reload"],
    ]


def _after_uninstall(layout: Layout) -> list[list[str]]:
    if layout is Layout.USER:
        return [["systemctl", "--user", "daemon-reload"]]
    return [["systemctl", "daemon-reload"], ["udevadm", "control", "--reload"]]


def _systemctl(layout: Layout) -> str:
    return "systemctl --user" if layout is Layout.USER else "sudo systemctl"


def _running(layout: Layout) -> Iterator[str]:
    """Return the units of running relays; none without systemd."""
    if shutil.which("systemctl") is None:
        return
    _, output, _ = _run(
        [
            *("systemctl", *(["--user"] if layout is Layout.USER else [])),
            *("list-units", "--plain", "--no-legend", "relayd@*.service"),
        ]
    )
    for line in output.splitlines():
        unit, _, state, *_ = line.split()
        if state in {"active", "activating", "deactivating", "reloading"}:
            yield unit
