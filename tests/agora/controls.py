"""What tests can ask of the hub: one method each, named by a request's `do`.

A wish's other keys are the method's arguments. `channel` may be left out where a member is
meant: then it is the newest of that uid.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.agora.channel import Channel
from tests.agora.connection import Connection
from tests.agora.faults import JoinFault
from tests.agora.member import Member, State
from tests.agora.pictures import PictureFault
from tests.agora.reception import Reception
from tests.agora.services import Preset, Services
from tests.agora.sounds import SoundFault

EVENTS = {"will_expire": 1, "error": 2, "lost": 0, "did_expire": 0}
"""What a member can be told without any change of its state, and the number of words."""
ORDERS = {"abort": 0, "segv": 0, "hang": 1, "fail": 2}
"""What a service can be ordered to do, and the number of words."""
FATAL = {"abort", "segv"}
"""Orders that end the process."""


class Controls:
    """A test's control of the hub."""

    def __init__(self, reception: Reception, services: Services) -> None:
        self._reception, self._services = reception, services
        self._wishes: Mapping[str, Callable[..., Any]] = {
            name: method
            for name, method in inspect.getmembers(self, inspect.ismethod)
            if not name.startswith("_") and name != "serve"
        }

    async def serve(self, connection: Connection) -> None:
        """Carry out one test's requests until it disconnects."""
        while True:
            answer = await self._answer(await connection.line())
            connection.post(json.dumps(answer).encode("ascii") + b"\n")

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            wish = json.loads(line)
            name = wish.pop("do")
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"error": 'a wish is a JSON object with a "do"'}
        method = self._wishes.get(name)
        if method is None:
            return {"error": f"{name!r} cannot be done; {', '.join(self._wishes)} can"}
        try:
            arguments = inspect.signature(method).bind(**wish)
        except TypeError as fault:
            return {"error": f"{name}: {fault}"}
        try:
            result = method(*arguments.args, **arguments.kwargs)
            return {"ok": await result if inspect.isawaitable(result) else result}
        except (LookupError, TypeError, ValueError) as fault:
            return {"error": f"{name}: {fault.args[0] if fault.args else fault}"}

    # Channels

    def open(
        self, app_id: str, channel: str, token: str, uids: Sequence[str], key_seconds: float = 2.0
    ) -> None:
        """Open a channel to `uids` (to anybody: none); a key frame comes each `key_seconds`."""
        if (app_id, channel) in self._reception.channels:
            raise ValueError(f"{channel!r} has been opened before")
        self._reception.channels[app_id, channel] = Channel(
            channel,
            token=token,
            uids=uids,
            key_seconds=key_seconds,
            fault_of=self._reception.faults.of_pictures,
            sound_fault_of=self._reception.faults.of_sounds,
        )

    def close(self, channel: str) -> None:
        """Close a channel permanently: members fail with reason 10, as do later joins."""
        self._channel(channel).close()

    def allow_token(self, channel: str, token: str) -> None:
        """Let one more token open the channel."""
        self._channel(channel).tokens.add(token)

    def expire_token(self, channel: str, token: str) -> None:
        """Refuse joins with this token from now on, for reason 9."""
        self._channel(channel).expired.add(token)

    # Members

    def members(self) -> list[dict[str, Any]]:
        """All who joined, or tried to, the oldest first."""
        return [member.described() for member in self._reception.members]

    def next_joins(
        self,
        uid: str,
        *,
        count: int = 1,
        delay: float = 0.0,
        answered: bool = True,
        reason: int | None = None,
        error: int | None = None,
    ) -> None:
        """Delay the user's next joins by s, refuse them, or never answer them."""
        fault = JoinFault(uid, count, delay, answered, reason, error)
        self._reception.faults.joins.append(fault)

    def send_event(
        self, uid: str, event: str, words: Sequence[str | int], channel: str = ""
    ) -> None:
        """Send a member an event of EVENTS; `did_expire` lets its token expire, too."""
        if EVENTS.get(event) != len(words):
            raise ValueError(f"events and their words are {EVENTS}, not {event!r} {words}")
        member, place = self._member(uid, channel)
        if event == "did_expire":
            place.expired.add(member.token)
        member.send_event(event, *words)

    def end_membership(self, uid: str, state: str, reason: int, channel: str = "") -> None:
        """End a membership by `failed` or `disconnected`; the others see it drop out."""
        if state not in {State.FAILED, State.DISCONNECTED}:
            raise ValueError(f"the end is failed or disconnected, not {state!r}")
        member, place = self._member(uid, channel)
        place.end_membership(member, State(state), reason)

    def interrupt(self, uid: str, reason: int = 2, channel: str = "") -> None:
        """Cut a member off: it reconnects until it is resumed."""
        member, place = self._member(uid, channel)
        place.interrupt(member, reason)

    def resume(self, uid: str, reason: int = 15, channel: str = "") -> None:
        """Reconnect a member."""
        member, place = self._member(uid, channel)
        place.resume(member, reason)

    def go_away(self, uid: str, reason: int = 0, channel: str = "") -> None:
        """Let a member seem to have left: 0 quit, 1 dropped. It does not know."""
        member, place = self._member(uid, channel)
        place.go_away(member, reason)

    def come_back(self, uid: str, channel: str = "") -> None:
        """Let it be seen again."""
        member, place = self._member(uid, channel)
        place.come_back(member)

    def network(self, uid: str, rtt_ms: int, tx_loss: int, rx_loss: int, channel: str = "") -> None:
        """Set what a member's `stats` say of its network (losses in %), and send them."""
        member, _ = self._member(uid, channel)
        member.network = {"rtt_ms": rtt_ms, "tx_loss": tx_loss, "rx_loss": rx_loss}
        self._reception.report_to(member)

    # Pictures

    def pictures(self, uid: str, channel: str = "", **fault: Any) -> None:
        """Spoil the pictures for a member, or with no fault repair them; see PictureFault."""
        self._reception.faults.pictures[channel, uid] = PictureFault(**fault)

    def burst(self, uid: str, count: int, sender: str = "77", channel: str = "") -> None:
        """Send a member `count` grey pictures at once, of a user that it never asked for."""
        member, _ = self._member(uid, channel)
        member.burst(sender, count)

    # Sound

    def sound(self, uid: str, **fault: Any) -> None:
        """Spoil the sound for a member, or with no fault repair it; see SoundFault."""
        self._reception.faults.sounds[uid] = SoundFault(**fault)

    def burst_sound(self, uid: str, count: int, sender: str, channel: str = "") -> None:
        """Send a member `count` blocks of silence at once."""
        member, _ = self._member(uid, channel)
        member.burst_sound(sender, count)

    # Services

    def services(self) -> list[dict[str, Any]]:
        """All services, the oldest first."""
        return [service.described() for service in self._services.all]

    def calls(self, pid: int = 0) -> list[tuple[Any, ...]]:
        """Name, thread, in_callback, pid of each call, of one process or of all."""
        return [call for call in self._services.calls if pid in {0, call.pid}]

    async def order(self, name: str, words: Sequence[str | int], pid: int = 0) -> None:
        """Let a service do what ORDERS names; 0 is the newest. A fault of calls is set after it."""
        if ORDERS.get(name) != len(words):
            raise ValueError(f"orders and their words are {ORDERS}, not {name!r} {words}")
        service = self._services.running(pid)
        if service is None:
            raise LookupError("there is no such service" if pid else "there is no service")
        if name in FATAL:
            service.send_event(name, *words)
        else:
            await service.order(name, *words)

    def preset(self, hang: Sequence[str], fail: Mapping[str, int], init: int = 0) -> None:
        """Set what awaits services to come."""
        self._services.preset = Preset(tuple(hang), dict(fail), init)

    def clear(self) -> None:
        """Remove all faults, end all channels, forget presets, calls and services that ended."""
        self._reception.clear()
        self._services.clear()

    def _channel(self, name: str) -> Channel:
        found = [one for one in self._reception.channels.values() if one.name == name]
        if not found:
            raise LookupError(f"there is no channel {name!r}")
        return found[-1]

    def _member(self, uid: str, channel: str) -> tuple[Member, Channel]:
        for member in reversed(self._reception.members):
            place = self._reception.channel_of(member)
            if place and member.uid == uid and channel in {"", place.name}:
                return member, place
        raise LookupError(f"user {uid!r} is in no channel" + f" {channel!r}" * bool(channel))
