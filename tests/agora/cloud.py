"""The tests' handle on a hub: starts the process, controls it, leaves nothing behind."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.agora.control import Control
from tests.agora.services import Call
from tests.agora.wire import Leaving, Reason

ROOT = Path(__file__).parents[2]
FRONT = "1"
"""The relay's user in the sessions of the service."""
STOP = 5.0
"""s that the hub may take to end."""


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """One membership, or a try at one, as the hub saw it."""

    app_id: str
    channel: str
    uid: str
    token: str
    role: int
    """1 may publish."""
    pid: int
    state: str
    """One of tests.agora.member.State."""
    publishes: list[str]
    subscribes: list[str]
    encoder: Mapping[str, int]
    """width, height, fps, bitrate, min_bitrate (bit/s), codec; empty until it was set."""
    renewed: list[str]
    """The tokens, in their order."""
    intra_requests: Mapping[str, int]
    """By the user who was asked."""
    frames_in: int
    frames_out: int
    frames_replaced: int
    """Not sent, for a newer one came while the member was busy."""
    size_in: Sequence[int]
    """Width and height of what it sent last."""
    hears: list[str]
    sound_profile: Sequence[int]
    """Profile and scenario; empty where no sound was published."""
    plays_out: bool
    sound: Mapping[str, Any]
    """What it sent: tests.agora.sounds.SentSound, as JSON."""
    heard: int
    """Blocks of sound that it was sent."""


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A process that has initialised the stand-in library."""

    pid: int
    app_id: str
    running: bool
    profile: int
    scenario: int
    string_uid: int
    video: int


class Cloud:
    """A running hub. Where a `uid` is named it is the newest member of that uid."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agora-")
        self.path = f"{self._folder.name}/hub"
        """The socket, for XDG_AGORA_HUB."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.agora.hub", self.path], cwd=ROOT, stdout=subprocess.PIPE
        )
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline().decode()
            assert line.startswith("hub ready at "), f"the hub did not start: {line!r}"
            self.control = Control(self.path)
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """End the hub and every connection to it."""
        self.control.close()
        self._end()

    # Channels

    def open(
        self,
        channel: str,
        *,
        app_id: str,
        token: str,
        uids: Iterable[str] = (),
        key_seconds: float = 2.0,
    ) -> None:
        """Open a channel to `uids` (none: anybody); 0 key_seconds: pictures come at once."""
        self.control.ask(
            "open",
            app_id=app_id,
            channel=channel,
            token=token,
            uids=list(uids),
            key_seconds=key_seconds,
        )

    def close(self, channel: str) -> None:
        """Close it permanently: its members fail with reason 10, and so do later joins."""
        self.control.ask("close", channel=channel)

    def allow_token(self, channel: str, token: str) -> None:
        """Let one more token open the channel."""
        self.control.ask("allow_token", channel=channel, token=token)

    def expire_token(self, channel: str, token: str) -> None:
        """Refuse joins with this token from now on; members with it stay."""
        self.control.ask("expire_token", channel=channel, token=token)

    # What was seen

    def members(self, uid: str | None = None) -> list[MemberSeen]:
        """All memberships and tries since clear(), of one uid or of all, the oldest first."""
        seen = [MemberSeen(**one) for one in self.control.ask("members")]
        return [one for one in seen if uid in {None, one.uid}]

    def services(self) -> list[ServiceSeen]:
        """All services since clear(), the oldest first."""
        return [ServiceSeen(**one) for one in self.control.ask("services")]

    def calls(self, pid: int = 0) -> list[Call]:
        """The library's calls since clear(), of one process or of all."""
        return [Call(*one) for one in self.control.ask("calls", pid=pid)]

    # Joins to come

    def refuse_joins(
        self, reason: int | None, uid: str = FRONT, *, count: int = 1, error: int | None = None
    ) -> None:
        """Let the user's next joins end by `error`, if given, then by `failed` with a reason."""
        self.control.ask("next_joins", uid=uid, count=count, reason=reason, error=error)

    def ignore_joins(self, uid: str = FRONT, *, count: int = 1) -> None:
        """Never answer the user's next joins."""
        self.control.ask("next_joins", uid=uid, count=count, answered=False)

    def delay_joins(self, seconds: float, uid: str = FRONT, *, count: int = 1) -> None:
        """Let the user's next joins wait for their answer."""
        self.control.ask("next_joins", uid=uid, count=count, delay=seconds)

    # Members there are

    def will_expire(self, token: str, uid: str = FRONT) -> None:
        """Tell a member that its token will expire soon."""
        self.control.ask("send_event", uid=uid, event="will_expire", words=[token])

    def did_expire(self, uid: str = FRONT) -> None:
        """Tell a member that its token is expired; to join with it again fails."""
        self.control.ask("send_event", uid=uid, event="did_expire", words=[])

    def error(self, code: int, text: str = "", uid: str = FRONT) -> None:
        """Report an error to a member."""
        self.control.ask("send_event", uid=uid, event="error", words=[code, text])

    def interrupt(self, uid: str = FRONT, reason: int = Reason.INTERRUPTED) -> None:
        """Cut a member off: `reconnecting`, and no picture either way."""
        self.control.ask("interrupt", uid=uid, reason=reason)

    def lose(self, uid: str = FRONT) -> None:
        """Tell an interrupted member that it has been cut off for long: `lost`."""
        self.control.ask("send_event", uid=uid, event="lost", words=[])

    def resume(self, uid: str = FRONT, reason: int = Reason.REJOINED) -> None:
        """Reconnect an interrupted member."""
        self.control.ask("resume", uid=uid, reason=reason)

    def fail(self, reason: int, uid: str = FRONT) -> None:
        """End a membership by `failed`; the others see the user drop out."""
        self.control.ask("end_membership", uid=uid, state="failed", reason=reason)

    def disconnect(self, reason: int, uid: str = FRONT) -> None:
        """End a membership by `disconnected`; the others see the user drop out."""
        self.control.ask("end_membership", uid=uid, state="disconnected", reason=reason)

    def go_away(self, uid: str, reason: int = Leaving.QUIT) -> None:
        """Let a user seem to have left, which it does not know."""
        self.control.ask("go_away", uid=uid, reason=reason)

    def come_back(self, uid: str) -> None:
        """Let it be seen again."""
        self.control.ask("come_back", uid=uid)

    def network(self, rtt_ms: int, tx_loss: int, rx_loss: int, uid: str = FRONT) -> None:
        """Set what a member's `stats` say of its network, losses in percent; sends them."""
        self.control.ask("network", uid=uid, rtt_ms=rtt_ms, tx_loss=tx_loss, rx_loss=rx_loss)

    # Pictures for a member

    def spoil(
        self,
        uid: str = FRONT,
        *,
        channel: str = "",
        size: tuple[int, int] = (0, 0),
        **fault: int | bool,
    ) -> None:
        """Spoil the pictures for a member, now and after it joins again, in place of before.

        `size` is width and height in pixels; the faults are PictureFault's: pad, rotation,
        frozen, stopped, echo, broken. `channel` limits it to one.
        """
        width, height = size
        self.control.ask("pictures", uid=uid, channel=channel, width=width, height=height, **fault)

    def repair(self, uid: str = FRONT, *, channel: str = "") -> None:
        """Let the pictures for a member pass as they are."""
        self.control.ask("pictures", uid=uid, channel=channel)

    def burst(self, count: int, uid: str = FRONT, *, sender: str = "77") -> None:
        """Send a member so many pictures at once of a user that it never asked for."""
        self.control.ask("burst", uid=uid, count=count, sender=sender)

    def spoil_sound(self, uid: str = FRONT, **fault: int | bool | str) -> None:
        """Spoil the sound for a member: tests.agora.sounds.SoundFault's; none repairs it."""
        self.control.ask("sound", uid=uid, **fault)

    def burst_sound(self, count: int, uid: str = FRONT, *, sender: str) -> None:
        """Send a member so many blocks of silence at once."""
        self.control.ask("burst_sound", uid=uid, count=count, sender=sender)

    # Inside the library

    def preset(
        self, *, hang: Iterable[str] = (), fail: Mapping[str, int] | None = None, init: int = 0
    ) -> None:
        """Set what awaits services to come, in place of what was set; names without "agora_".

        Functions of `hang` never return, those of `fail` return the number and do nothing;
        `init` is what initialising returns.
        """
        self.control.ask("preset", hang=list(hang), fail=dict(fail or {}), init=init)

    def hang(self, name: str, pid: int = 0) -> None:
        """Let calls of a function never return; pid 0 is the newest service, as below."""
        self.control.ask("order", name="hang", words=[name], pid=pid)

    def fail_calls(self, name: str, returns: int, pid: int = 0) -> None:
        """Let calls of a function do nothing and return this."""
        self.control.ask("order", name="fail", words=[name, returns], pid=pid)

    def abort(self, pid: int = 0) -> None:
        """End a service's process by SIGABRT, from inside."""
        self.control.ask("order", name="abort", words=[], pid=pid)

    def segv(self, pid: int = 0) -> None:
        """End a service's process by SIGSEGV, from inside."""
        self.control.ask("order", name="segv", words=[], pid=pid)

    def clear(self) -> None:
        """Mend all faults and presets, end all channels, forget calls and services that ended."""
        self.control.ask("clear")

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
