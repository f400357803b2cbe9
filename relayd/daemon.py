"""`relayd run`: one relay as a process, with its signals, control server and systemd."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from relayd.config import Settings, control_socket
from relayd.control.api import Pictures, build_app
from relayd.control.notify import Notifier
from relayd.control.server import ControlServer
from relayd.errors import ExitCode, RelaydError
from relayd.logs import get, redact
from relayd.output.preview import Preview
from relayd.relay.relay import Relay
from relayd.relay.status import RelayState
from relayd.reload import Reloader
from relayd.rtc.kinds import require_link
from relayd.service import connect, open_journal

OLDEST_BEAT = 2.0
"""s without a beat of the outputs after which systemd's watchdog is no longer fed."""
PULSE = 1.0
"""s between two looks at the beat, or less where systemd asks for it: a hiccup that falls into
one of many looks does no harm, a relay that is stuck misses all of them."""

_log = get("daemon")


async def run_daemon(
    settings: Settings,
    name: str,
    reread: Callable[[], Settings],
    *,
    require_outputs: bool = False,
) -> int:
    """Run the relay until SIGTERM or SIGINT; gives the exit code.

    `reread` gives the settings as they are when a service manager asks for a reload. With
    `require_outputs` an output that cannot be opened at the start is not waited for: Unavailable.
    """
    require_link(settings.rtc.kind)
    notifier = Notifier()
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        client = await stack.enter_async_context(connect(settings))
        preview = Preview(settings.video.geometry)
        announcer = _Announcer(notifier)
        relay = Relay(
            settings,
            name,
            client,
            open_journal(settings),
            more_outputs=[preview],
            require_outputs=require_outputs,
            on_change=announcer,
        )
        server = ControlServer(
            build_app(relay, relay.metrics, Pictures(preview), _host(settings)),
            control_socket(settings, name),
            settings.control.address,
        )
        await server.start()
        stack.push_async_callback(server.stop)
        heart = asyncio.create_task(_feed_watchdog(relay, notifier), name="relayd-heart")
        stack.callback(heart.cancel)
        if notifier.active:
            reloader = Reloader(settings, reread, relay.apply)
            ear = asyncio.create_task(_reload_on_hangup(reloader, announcer), name="relayd-reload")
            stack.callback(ear.cancel)
        try:
            await relay.run(stop)
        except RelaydError as fault:
            notifier.status(redact(str(fault)))
            raise
    return ExitCode.CLEAN


def _host(settings: Settings) -> str:
    address = settings.control.address
    return address[0] if address else "localhost"


@contextmanager
def stopped_by_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM, SIGINT or the terminal's hang-up sets while the block runs.

    A hang-up that `nohup` had ignored stays so.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class _Announcer:
    """Tells systemd each state; READY with the first one that has a picture on the outputs."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._words = ""
        self._note = ""
        self.is_ready = asyncio.Event()

    def __call__(self, state: RelayState, reason: str) -> None:
        self._words = f"{state.words}: {reason}" if reason else state.words
        if state is RelayState.CLOSING:
            self._notifier.stopping(self._words)
        elif self.is_ready.is_set() or state is RelayState.STOPPED:
            self._notifier.status(self._line())
        else:
            self.is_ready.set()
            self._notifier.ready(self._line())

    def reloading(self) -> None:
        """A reload begins."""
        self._notifier.reloading()

    def reloaded(self, note: str) -> None:
        """A reload has ended; `note` stays in the status until the next one."""
        self._note = note
        self._notifier.ready(self._line())

    def _line(self) -> str:
        return f"{self._words} [{self._note}]" if self._note else self._words


async def _reload_on_hangup(reloader: Reloader, announcer: _Announcer) -> None:
    """Reload at each SIGHUP, one after the other, and never before READY."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    await announcer.is_ready.wait()
    while True:
        await asked.wait()
        asked.clear()
        announcer.reloading()
        result = await reloader.reload()
        announcer.reloaded(result.note)


async def _feed_watchdog(relay: Relay, notifier: Notifier) -> None:
    """Feed systemd's watchdog for as long as this loop turns and the outputs beat."""
    if (interval := notifier.watchdog) is None:
        return
    while True:
        if relay.pipeline.since_beat() < OLDEST_BEAT:
            notifier.alive()
        await asyncio.sleep(min(interval, PULSE))
