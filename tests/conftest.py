"""What holds for every test: nothing may be left behind."""

import asyncio
import functools
import inspect
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.clips import Clips

# Timings say nothing on a busy machine; examples are few, so that the suite stays quick.
settings.register_profile(
    "relayd", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("relayd")

# Under nohup a hang-up is ignored, by the relays of the tests as well.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

SETTLE = 3.0  # s that threads, processes and sockets get to end by themselves after a test


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a process, an fd or a shared-memory block."""
    before = _belongings()
    yield
    deadline = time.monotonic() + SETTLE
    while (left := _left(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        pytest.fail("left behind: " + ", ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def logs_to_stdout() -> None:
    """Undo what a test before set up: a log that is not configured goes to stdout."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """A place where clips are made, each once."""
    return Clips(tmp_path_factory.mktemp("clips"))


UNTRACED = {"agora", "browser", "e2e", "emulator", "live", "vm"}
"""Folders whose tests run relayd in processes of their own, or the emulator: coverage traces
nothing of use there, and costs half as much time again."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each coroutine test fail that leaves a task; trace where it is of use."""
    for item in items:
        if UNTRACED & set(item.path.relative_to(Path(__file__).parent).parts):
            item.add_marker(pytest.mark.no_cover)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _without_tasks_left(item.obj)


def _without_tasks_left(
    test: Callable[..., Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def checked(*args: object, **kwargs: object) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        deadline = time.monotonic() + SETTLE
        while (left := asyncio.all_tasks() - before) and time.monotonic() < deadline:  # noqa: ASYNC110 - tasks announce no end
            await asyncio.sleep(0.02)
        assert not left, f"tasks left behind: {left}"

    return checked


def _belongings() -> dict[str, str]:
    """Name everything this process holds, by a key that is its own."""
    things = {
        f"thread {thread.ident}": f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.name.startswith("asyncio_")  # the loop's own pool, ended with the loop
    }
    for child in _descendants():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if child.status() != psutil.STATUS_ZOMBIE:
                words = " ".join(child.cmdline())[:80]
                things[f"process {child.pid}"] = f"process {child.pid} {words}"
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "/", "anon_inode:", "/memfd:")):
            things[f"fd {target}"] = f"fd {fd.name} {target}"
    for block in Path("/dev/shm").iterdir():
        things[f"shm {block}"] = f"shared memory {block}"
    return things


def _descendants() -> list[psutil.Process]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # no child: spares most tests a look at each process there is
        return []
    return psutil.Process().children(recursive=True)


def _left(before: dict[str, str]) -> list[str]:
    now = _belongings()
    return [
        name
        for key, name in now.items()
        if key not in before and not name.endswith(("/fd", "(deleted)/fd"))
    ]
