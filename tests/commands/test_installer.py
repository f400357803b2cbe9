import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.commands import installer
from relayd.commands.installer import Installer, InstallOptions
from relayd.commands.system_files import MANAGED_FILES, FileStatus, Layout, require_visible, shipped
from relayd.errors import ExitCode, Unavailable, UsageError

COMMAND = "/opt/relayd/bin/relayd"
SHIPPED = ("modprobe.d", "modules-load.d", "sysusers.d", "tmpfiles.d", "udev")
MODPROBE = "etc/modprobe.d/relayd.conf"


def no_questions(question: str) -> bool:
    pytest.fail(f"asked: {question}")


class Person:
    """Answers each question, and records the output."""

    def __init__(self, answer: Callable[[str], bool] = no_questions) -> None:
        self.asked: list[str] = []
        self.output: list[str] = []
        self._answer = answer

    def ask(self, question: str) -> bool:
        self.asked.append(question)
        return self._answer(question)

    @property
    def text(self) -> str:
        return "\n".join(self.output)


def at(
    root: Path,
    person: Person,
    layout: Layout = Layout.SYSTEM,
    command: str = COMMAND,
    **flags: bool,
) -> Installer:
    flags = {"yes": True, "changed_too": False, "dry_run": False} | flags
    options = InstallOptions(layout, root, command, **flags)
    return Installer(options, person.output.append, person.ask)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_every_shipped_file_has_a_place_and_no_two_share_one() -> None:
    named = {managed.source for managed in MANAGED_FILES}
    there = {
        str(path.relative_to(shipped()))
        for folder in ("systemd", *(f"config/{name}" for name in SHIPPED))
        for path in (shipped() / folder).rglob("*")
        if path.is_file()
    }
    assert there == named - {"config/relayd.toml"}
    for layout in Layout:
        targets = [
            managed.targets[layout] for managed in MANAGED_FILES if layout in managed.targets
        ]
        assert targets
        assert len(set(targets)) == len(targets)


@pytest.mark.parametrize("layout", Layout)
def test_what_is_installed_is_removed_and_nothing_else(tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "etc/modprobe.d/other.conf").write_text("options snd index=1\n")
    assert at(tmp_path, Person(), layout).install() is ExitCode.CLEAN
    assert len(files(tmp_path)) > 2
    assert at(tmp_path, Person(), layout).uninstall() is ExitCode.CLEAN
    assert files(tmp_path) == {"etc/modprobe.d/other.conf"}


def test_units_start_the_relayd_that_installs_them(tmp_path: Path) -> None:
    at(tmp_path, Person()).install()
    unit = (tmp_path / "etc/systemd/system/relayd@.service").read_text()
    assert f"ExecStart={COMMAND} run -c /etc/relayd/%i.toml" in unit
    assert "/usr/bin/relayd" not in unit


def test_a_second_install_has_nothing_to_do(tmp_path: Path) -> None:
    at(tmp_path, Person()).install()
    person = Person()
    at(tmp_path, person).install()
    assert person.output[-1] == "nothing to do"


def test_a_file_of_an_older_relayd_is_replaced_without_a_question_of_its_own(
    tmp_path: Path,
) -> None:
    at(tmp_path, Person(), command="/opt/old/bin/relayd").install()
    person = Person(lambda question: question.startswith("put in place 2 file"))
    at(tmp_path, person, yes=False).install()
    assert len(person.asked) == 1
    assert "-ExecStart=/opt/old/bin/relayd" in person.text
    assert COMMAND in (tmp_path / "etc/systemd/system/relayd@.service").read_text()


def test_a_file_that_somebody_changed_is_shown_asked_for_and_kept(tmp_path: Path) -> None:
    at(tmp_path, Person()).install()
    changed = tmp_path / MODPROBE
    changed.write_text("options v4l2loopback devices=1\n")
    quiet = Person()
    at(tmp_path, quiet).install()
    assert changed.read_text() == "options v4l2loopback devices=1\n"
    assert "-options v4l2loopback devices=1" in quiet.text
    assert f"kept      {changed}" in quiet.text
    person = Person(lambda question: False)
    at(tmp_path, person, yes=False).install()
    assert person.asked == [f"replace {changed}, which was changed here?"]
    assert changed.read_text() == "options v4l2loopback devices=1\n"
    at(tmp_path, Person(), changed_too=True).install()
    assert changed.read_bytes() == (shipped() / "config/modprobe.d/relayd.conf").read_bytes()


def test_uninstall_leaves_a_changed_file_until_it_is_asked_for(tmp_path: Path) -> None:
    at(tmp_path, Person()).install()
    (tmp_path / MODPROBE).write_text("mine")
    at(tmp_path, Person()).uninstall()
    assert MODPROBE in files(tmp_path)
    at(tmp_path, Person(), changed_too=True).uninstall()
    assert files(tmp_path) == set()


def test_a_masked_unit_counts_as_changed(tmp_path: Path) -> None:
    mask = tmp_path / "etc/systemd/system/relayd@.service"
    mask.parent.mkdir(parents=True)
    mask.symlink_to("/dev/null")
    at(tmp_path, Person()).install()
    assert mask.is_symlink()


def test_a_dry_run_says_all_and_does_nothing(tmp_path: Path) -> None:
    person = Person()
    at(tmp_path, person, dry_run=True, yes=False).install()
    assert files(tmp_path) == set()
    assert len([line for line in person.output if line.startswith(FileStatus.ABSENT.value)]) == 10
    assert person.output[-1] == "10 file(s) to put in place, 0 changed; nothing was done"


def test_options_of_the_module_in_another_file_are_pointed_at(tmp_path: Path) -> None:
    other = tmp_path / "etc/modprobe.d/webcam.conf"
    other.parent.mkdir(parents=True)
    other.write_text("options v4l2loopback keep_format=1\n")
    person = Person()
    at(tmp_path, person).install()
    assert f"note      {other} sets options of v4l2loopback as well: they add up" in person.output


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/systemd").write_text("a file where a folder belongs")
    with pytest.raises(Unavailable, match=r"etc/systemd/system/relayd@\.service: Not a directory"):
        at(tmp_path, Person()).install()


@pytest.mark.parametrize("command", ["/home/me/venv/bin/relayd", "/root/bin/relayd"])
def test_a_relayd_that_a_service_cannot_see_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="cannot see"):
        require_visible(command)


def test_without_root_the_command_to_type_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installer, "user_root", lambda: tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["relayd", "install"])
    options = InstallOptions(
        Layout.SYSTEM, None, COMMAND, yes=True, changed_too=False, dry_run=False
    )
    wary = Installer(options, lambda line: None, no_questions)
    monkeypatch.setattr(wary._files, "write", lambda _file: pytest.fail("something was written"))
    with pytest.raises(Unavailable, match=r"sudo .*relayd install"):
        wary.install()


def test_nobody_to_ask_is_an_error_and_not_a_no(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).parent / "relayd",
            "install",
            "--root",
            tmp_path,
            "--command",
            COMMAND,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == "relayd: cannot ask: stdin is not a terminal (give --yes or --dry-run)\n"
    assert files(tmp_path) == set()
