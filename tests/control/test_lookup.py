"""Which relays are found, and the messages where permission is missing."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from relayd.commands import remote
from relayd.config.socket_folders import default_socket, fallback, make_fallback
from relayd.control import lookup
from relayd.control.lookup import FoundRelay, FoundRelays, HiddenPlace, choose
from relayd.errors import (
    ExitCode,
    NotRunning,
    RelaydError,
    RelayHidden,
    RelayStuck,
    Unavailable,
    UsageError,
)

UID = os.geteuid()
NOBODY = 65534
STUDIO = FoundRelay("studio", Path("/s/studio.sock"), 1)
KITCHEN = FoundRelay("kitchen", Path("/s/kitchen.sock"), 2)
HIDDEN = HiddenPlace(Path("/run/relayd/den"), "den", "permission denied", "run it as root")

Listen = Callable[[Path], Path]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return a function that makes a listening socket."""
    with ExitStack() as stack:

        def start(path: Path) -> Path:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            return path

        yield start


@pytest.fixture
def machine() -> Iterator[Path]:
    """A short folder that stands for /run and /tmp, which all users may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def look(machine: Path, uid: int = UID, **environment: str) -> FoundRelays:
    return lookup.find_relays(
        environment,
        uid=uid,
        system=machine / "system",
        users=machine / "users",
        shared=machine / "tmp",
    )


def test_relays_of_the_system_and_of_the_user_are_found_wherever_they_listen(
    machine: Path, listen: Listen
) -> None:
    paths = {
        "studio": machine / "system/studio/control.sock",
        "desk": machine / "xdg/relayd/desk.sock",
        "den": machine / f"users/{UID}/relayd/den.sock",
        "loft": machine / f"tmp/relayd-{UID}/loft.sock",
    }
    for path in paths.values():
        listen(path)
    found = look(machine, XDG_RUNTIME_DIR=str(machine / "xdg"))
    assert {relay.name: relay.socket for relay in found.relays} == paths
    assert {relay.pid for relay in found.relays} == {os.getpid()}
    assert not found.hidden


def test_the_socket_of_a_relay_that_was_killed_is_no_relay(machine: Path) -> None:
    folder = machine / "xdg/relayd"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(folder / "dead.sock"))
    (folder / "file.sock").touch()
    assert look(machine, XDG_RUNTIME_DIR=str(machine / "xdg")) == FoundRelays()


def test_a_relay_whose_queue_is_full_is_found_at_once(machine: Path) -> None:
    path = machine / "xdg/relayd/stuck.sock"
    path.parent.mkdir(parents=True)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(2):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            caller.connect_ex(str(path))
        (relay,) = look(machine, XDG_RUNTIME_DIR=str(machine / "xdg")).relays
    assert (relay.name, relay.pid) == ("stuck", None)


def test_a_folder_in_tmp_that_another_user_made_is_not_trusted(
    machine: Path, listen: Listen
) -> None:
    listen(machine / f"tmp/relayd-{UID}/false.sock")
    (machine / f"tmp/relayd-{UID}").chmod(0o777)
    found = look(machine)
    assert not found.relays
    with pytest.raises(RelayHidden, match="belongs to another user, or others may write to it"):
        choose(found)


def _as_nobody(machine: Path, answer: Any) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        choose(look(machine, NOBODY), None)
    except RelaydError as fault:
        answer.put((type(fault).__name__, str(fault), int(fault.exit_code)))
    else:
        answer.put(None)


@pytest.mark.skipif(UID != 0, reason="another user can be tried by root alone")
def test_the_hint_says_which_user_may_look(machine: Path, listen: Listen) -> None:
    path = listen(machine / "system/studio/control.sock")
    os.chown(path.parent, NOBODY, NOBODY)
    place = lookup._hidden(path, "studio", PermissionError(13, "Permission denied"))
    assert place.hint == "run it as root"
    os.chown(path, NOBODY, NOBODY)
    place = lookup._hidden(path, "studio", PermissionError(13, "Permission denied"))
    assert place.hint == "run it as root or user nobody"


@pytest.mark.skipif(UID != 0, reason="another user can be tried by root alone")
@pytest.mark.parametrize("closed", ["system", "system/studio", "system/studio/control.sock"])
def test_where_a_user_may_not_look_it_never_says_that_no_relay_runs(
    machine: Path, listen: Listen, closed: str
) -> None:
    path = listen(machine / "system/studio/control.sock")
    for one in (path, *path.parents[:2]):
        one.chmod(0o777)  # what is closed is the one place below
    (machine / closed).chmod(0o700)
    fork = get_context("fork")
    answer = fork.SimpleQueue()
    child = fork.Process(target=partial(_as_nobody, machine, answer))
    child.start()
    kind, words, code = answer.get()
    child.join()
    child.close()
    answer.close()
    assert kind == "RelayHidden"
    assert f"{machine / 'system'}" in words
    assert "permission denied (run it as root)" in words
    assert code == ExitCode.UNAVAILABLE


def test_the_only_relay_is_chosen_or_the_named_one() -> None:
    assert choose(FoundRelays([STUDIO])) == STUDIO
    assert choose(FoundRelays([STUDIO], [HIDDEN])) == STUDIO
    assert choose(FoundRelays([STUDIO, KITCHEN]), "kitchen") == KITCHEN
    with pytest.raises(UsageError, match=r"several relays run \(running: studio, kitchen\)"):
        choose(FoundRelays([STUDIO, KITCHEN]))


def test_two_relays_of_one_name_are_told_apart_by_their_sockets() -> None:
    twin = FoundRelay("studio", Path("/t/studio.sock"), 3)
    with pytest.raises(UsageError, match=r"/s/studio\.sock, /t/studio\.sock.*--socket"):
        choose(FoundRelays([STUDIO, twin]), "studio")


def test_no_relay_and_none_of_a_name_end_with_3() -> None:
    with pytest.raises(NotRunning, match="no relay runs") as none:
        choose(FoundRelays())
    assert none.value.exit_code == ExitCode.NOT_RUNNING
    assert int(ExitCode.NOT_RUNNING) == 3
    with pytest.raises(NotRunning, match=r"no relay named den runs \(running: studio\)"):
        choose(FoundRelays([STUDIO]), "den")


@pytest.mark.parametrize("name", [None, "den"])
def test_a_relay_without_permission_is_reported_with_who_has_it(name: str | None) -> None:
    with pytest.raises(RelayHidden) as caught:
        choose(FoundRelays([], [HIDDEN]), name)
    assert str(caught.value) == "/run/relayd/den: permission denied (run it as root)"


def test_a_socket_by_its_path_is_asked_and_a_dead_one_is_not_running(
    machine: Path, listen: Listen
) -> None:
    assert lookup.relay_at(listen(machine / "own.sock")).name == "own"
    for path in (machine / "none.sock", machine / "own.sock" / "x"):
        with pytest.raises(NotRunning, match="no relay runs on"):
            lookup.relay_at(path)


def test_a_process_that_a_signal_stopped_is_seen_at_once() -> None:
    process = subprocess.Popen(["sleep", "60"])
    relay = FoundRelay("a", Path("/a.sock"), process.pid)
    try:
        assert not relay.is_stopped
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert relay.is_stopped
    finally:
        process.kill()
        process.wait()
    assert not relay.is_stopped
    assert not FoundRelay("a", Path("/a.sock"), None).is_stopped


async def test_a_relay_that_listens_and_never_answers_is_reported_as_stuck(
    machine: Path, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "STUCK_AFTER", 0.2)
    relay = lookup.relay_at(listen(machine / "studio.sock"))
    for ask in (
        remote.fetch_status(relay),
        remote.fetch_status_and_page(relay),
        remote.send_command(relay, "/x"),
    ):
        with pytest.raises(RelayStuck, match=rf"\(stopped or frozen\), pid {os.getpid()} "):
            await ask
    assert remote.STUCK_AFTER < 3


async def test_a_relay_that_has_ended_meanwhile_is_not_running(machine: Path) -> None:
    with pytest.raises(NotRunning, match="relay studio has ended"):
        await remote.fetch_status(FoundRelay("studio", machine / "studio.sock", 1))


def test_run_puts_its_socket_where_status_looks_whatever_the_shell(machine: Path) -> None:
    place = partial(default_socket, "a", uid=UID, users=machine / "users", shared=machine / "tmp")
    assert place(environment={"RUNTIME_DIRECTORY": "/run/relayd/a"}) == Path(
        "/run/relayd/a/control.sock"
    )
    assert place(environment={"XDG_RUNTIME_DIR": "/run/user/1"}) == Path(
        "/run/user/1/relayd/a.sock"
    )
    assert place(environment={}) == machine / f"tmp/relayd-{UID}/a.sock"
    (machine / f"users/{UID}").mkdir(parents=True, mode=0o700)
    assert place(environment={}) == machine / f"users/{UID}/relayd/a.sock"


def test_the_fallback_folder_is_the_users_alone_or_it_is_not_used(machine: Path) -> None:
    assert make_fallback(UID, machine) == ""
    assert fallback(UID, machine).stat().st_mode & 0o777 == 0o700
    assert make_fallback(UID, machine) == ""
    fallback(UID, machine).rmdir()
    (machine / "elsewhere").mkdir()
    fallback(UID, machine).symlink_to(machine / "elsewhere")
    assert "belongs to another user" in make_fallback(UID, machine)
    assert "No such file" in make_fallback(UID, machine / "none")


def test_a_path_that_no_socket_can_have_is_no_relay_and_nobody_else_is_sent_to_look(
    machine: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(machine / "datagrams.sock"))
        for path in (machine / ("x" * 200), machine / "datagrams.sock", machine):
            with pytest.raises(NotRunning, match="no relay runs on"):
                lookup.relay_at(path)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b"{}", b'"x"', b"<html>", b'{"message": "page not found"}', b'{"reason": 5}'],
)
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not FoundRelays", b"500 Oops"])
async def test_another_program_on_the_socket_is_reported_as_no_relay(
    machine: Path, body: bytes, status: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    path = machine / "other.sock"
    async with await asyncio.start_unix_server(serve, path):
        for ask in (
            remote.fetch_status,
            remote.fetch_status_and_page,
            partial(remote.send_command, path="/api/pause"),
        ):
            with pytest.raises(Unavailable, match="is not a relay of this version") as caught:
                await ask(lookup.relay_at(path))
            assert str(path) in str(caught.value)
