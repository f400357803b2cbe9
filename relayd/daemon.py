"""`relayd run`: one relay as a process, with its signals, control server and systemd."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from relayd.config import Settings, control_socket
from relayd.control.api import Pictures, build_app
from relayd.control.notify import Notifier
from relayd.control.server import ControlServer
from relayd.errors import ExitCode
from relayd.logs import get
from relayd.output.preview import Preview
from relayd.relay import Relay
from relayd.rtc.kinds import require_link
from relayd.service import connect, open_journal
from relayd.states import RelayState

OLDEST_BEAT = 2.0
"""s without a beat of the outputs after which systemd's watchdog is no longer fed."""

_log = get("daemon")


async def run_daemon(settings: Settings, name: str) -> int:
    """Run the relay until SIGTERM or SIGINT; gives the exit code."""
    require_link(settings.rtc.kind)
    notifier = Notifier()
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        client = await stack.enter_async_context(connect(settings))
        preview = Preview(settings.video.geometry)
        relay = Relay(
            settings,
            name,
            client,
            open_journal(settings),
            more_outputs=[preview],
            on_change=_Announcer(notifier),
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
        await relay.run(stop)
    return ExitCode.CLEAN


def _host(settings: Settings) -> str:
    address = settings.control.address
    return address[0] if address else "localhost"


@contextmanager
def stopped_by_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM or SIGINT sets while the block runs."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
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
        self._ready = False

    def __call__(self, state: RelayState, reason: str) -> None:
        words = f"{state.words}: {reason}" if reason else state.words
        if state is RelayState.CLOSING:
            self._notifier.stopping(words)
        elif self._ready or state is RelayState.STOPPED:
            self._notifier.status(words)
        else:
            self._ready = True
            self._notifier.ready(words)


async def _feed_watchdog(relay: Relay, notifier: Notifier) -> None:
    """Feed systemd's watchdog for as long as this loop turns and the outputs beat."""
    if (interval := notifier.watchdog) is None:
        return
    while True:
        if relay.pipeline.since_beat() < OLDEST_BEAT:
            notifier.alive()
        await asyncio.sleep(interval)
