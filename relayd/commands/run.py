"""`relayd run`: one relay as a process, with its signals, control server and systemd."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from relayd.akool.connect import connect, open_journal
from relayd.config.paths import state_directory
from relayd.config.reload import Reloader
from relayd.config.settings import Settings
from relayd.control.api import Pictures, build_app
from relayd.control.endpoints import access_for, prepared_socket, show_page
from relayd.control.notify import Notifier
from relayd.control.server import ControlServer
from relayd.errors import ExitCode, RelaydError
from relayd.logs import redact
from relayd.output.preview import Preview
from relayd.process.early_signals import hangup_ends
from relayd.process.name_lock import NameLock
from relayd.process.signals import reload_requests, stopped_by_signals
from relayd.relay.background import in_background
from relayd.relay.relay import Relay
from relayd.relay.sleep.watch import SleepWatch
from relayd.relay.status import RelayState
from relayd.rtc.kinds import require_link

MAX_TICK_AGE = 2.0
"""s without a tick of the outputs after which systemd's watchdog is no longer fed."""
NOTIFY_PERIOD = 1.0
"""s between two watchdog messages, or less if systemd asks for it: one missed message does no harm,
a stuck relay misses all of them."""


async def run_daemon(
    settings: Settings,
    name: str,
    reread: Callable[[], Settings],
    *,
    require_outputs: bool = False,
) -> int:
    """Run the relay until SIGTERM or SIGINT; returns the exit code.

    `reread` returns the current settings for a reload, which SIGHUP requests. Raises Unavailable
    if a relay of this name is already running, and with `require_outputs` if an output cannot be
    opened at the start; otherwise that output is retried.
    """
    notifier = Notifier()
    try:
        await _run(settings, name, reread, notifier, require_outputs=require_outputs)
    except RelaydError as fault:
        notifier.status(redact(str(fault)))
        raise
    return ExitCode.CLEAN


async def _run(
    settings: Settings,
    name: str,
    reread: Callable[[], Settings],
    notifier: Notifier,
    *,
    require_outputs: bool,
) -> None:
    with_terminal = hangup_ends("run")
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals(hangup_ends=with_terminal))
        require_link(settings.rtc.kind, settings.rtc.engine)
        lock = NameLock(state_directory(settings), name)
        stack.enter_context(await asyncio.to_thread(lock.take))
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
            build_app(relay, relay.metrics, Pictures(preview), access_for(settings.control)),
            prepared_socket(settings, name),
            settings.control.address,
        )
        await server.start()
        show_page(server.page_url)
        stack.push_async_callback(server.stop)
        watchdog = in_background("watchdog", lambda: _feed_watchdog(relay, notifier))
        await stack.enter_async_context(watchdog)
        if not with_terminal:
            reloader = Reloader(settings, reread, relay.apply)
            reload_task = in_background("reload", lambda: _reload_on_hangup(reloader, announcer))
            await stack.enter_async_context(reload_task)
        sleep = in_background("sleep", SleepWatch(relay.suspend, relay.wake).run)
        await stack.enter_async_context(sleep)
        await relay.run(stop)


class _Announcer:
    """Reports each state to systemd; READY with the first one that has a picture on the outputs."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._text = ""
        self._note = ""
        self.is_ready = asyncio.Event()

    def __call__(self, state: RelayState, reason: str) -> None:
        self._text = f"{state.text}: {reason}" if reason else state.text
        if state is RelayState.CLOSING:
            self._notifier.stopping(self._text)
        elif self.is_ready.is_set() or state is RelayState.STOPPED:
            self._notifier.status(self._status_line())
        else:
            self.is_ready.set()
            self._notifier.ready(self._status_line())

    def reloading(self) -> None:
        """Report that a reload begins."""
        self._notifier.reloading()

    def reloaded(self, note: str) -> None:
        """Report that a reload has ended; `note` stays in the status until the next one."""
        self._note = note
        self._notifier.ready(self._status_line())

    def _status_line(self) -> str:
        return f"{self._text} [{self._note}]" if self._note else self._text


async def _reload_on_hangup(reloader: Reloader, announcer: _Announcer) -> None:
    """Reload at each SIGHUP, one after the other, and never before READY."""
    with reload_requests() as asked:
        await announcer.is_ready.wait()
        while True:
            await asked.wait()
            asked.clear()
            announcer.reloading()
            result = await reloader.reload()
            announcer.reloaded(result.note)


async def _feed_watchdog(relay: Relay, notifier: Notifier) -> None:
    """Feed systemd's watchdog while this event loop runs and the outputs tick.

    Sends READY again if that message was lost.
    """
    if not notifier.active:
        return
    interval = notifier.watchdog
    while True:
        if interval is not None and relay.pipeline.since_tick() < MAX_TICK_AGE:
            notifier.alive()
        notifier.resend_ready()
        await asyncio.sleep(NOTIFY_PERIOD if interval is None else min(interval, NOTIFY_PERIOD))
