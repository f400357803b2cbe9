"""A channel: who may enter, who is there, and whose pictures reach whom."""

import time
from collections.abc import Callable, Iterable, Iterator

from tests.agora.member import Member, State, Subscription
from tests.agora.pictures import Picture, PictureFault
from tests.agora.sounds import Block, SoundFault
from tests.agora.wire import Leaving, Reason, SoundReason, SoundState, VideoReason, VideoState

FaultOf = Callable[[str, str], PictureFault | None]
"""Takes channel and uid; returns what is wrong with the pictures for that member."""
SoundFaultOf = Callable[[str, str], SoundFault | None]
"""The same of sound."""


def _no_fault(_channel: str, _uid: str) -> None:
    return None


class Channel:
    """One channel of one app."""

    def __init__(
        self,
        name: str,
        *,
        token: str,
        uids: Iterable[str],
        key_seconds: float,
        fault_of: FaultOf = _no_fault,
        sound_fault_of: SoundFaultOf = _no_fault,
    ) -> None:
        """Let in `uids` (anybody where there are none); a key frame comes each `key_seconds`."""
        self.name, self.key_seconds = name, key_seconds
        self.tokens, self.expired = {token}, set[str]()
        self.uids = frozenset(uids)
        self.closed = False
        self.members: dict[str, Member] = {}
        self._fault_of, self._sound_fault_of = fault_of, sound_fault_of

    def refusal(self, uid: str, token: str) -> Reason | None:
        """Why somebody may not enter, if so."""
        if self.closed:
            return Reason.REJECTED
        if token in self.expired:
            return Reason.TOKEN_EXPIRED
        if token not in self.tokens or (self.uids and uid not in self.uids):
            return Reason.INVALID_TOKEN
        return None

    def admit(self, member: Member) -> None:
        """Let a member in; one of the same uid must go."""
        if twin := self.members.get(member.uid):
            self.end_membership(twin, State.FAILED, Reason.SAME_UID)
        self.members[member.uid] = member
        member.state = State.CONNECTED
        member.send_event("connected", Reason.JOINED, member.uid)
        for other in self._others(member):
            if not other.away:
                member.send_event("joined", other.uid)
        self._appear(member)
        for uid in member.subscriptions:
            if (publisher := self.members.get(uid)) and publisher.on_air:
                self._begin(member, publisher)
        for uid in member.hearing.subscriptions:
            if (publisher := self.members.get(uid)) and publisher.on_microphone:
                self._begin_sound(member, publisher)

    def end_membership(self, member: Member, state: State, reason: int) -> None:
        """End a membership; to the others it drops out."""
        self._remove(member, Leaving.DROPPED)
        member.end(state, reason)

    def leave(self, member: Member) -> None:
        """Remove a member that left."""
        self._remove(member, Leaving.QUIT)
        member.part()

    def lose(self, member: Member) -> None:
        """Remove a member whose connection ended."""
        self._remove(member, Leaving.DROPPED)
        if not member.over:
            member.state = State.VANISHED

    def close(self) -> None:
        """Close the channel for all, permanently."""
        self.closed = True
        for member in list(self.members.values()):
            self.end_membership(member, State.FAILED, Reason.REJECTED)

    def publish(self, member: Member, kind: str) -> None:
        """Begin to let the others have a member's video or audio."""
        member.publishes.add(kind)
        if kind == "video":
            self._offer(member)
        else:
            self._offer_sound(member)

    def unpublish(self, member: Member, kind: str) -> None:
        """Stop that."""
        if kind == "video" and member.on_air:
            self._send_subscribers(member, VideoState.STOPPED, VideoReason.MUTED)
        if kind == "audio" and member.on_microphone:
            self._send_hearers(member, SoundState.STOPPED, SoundReason.MUTED)
        member.publishes.discard(kind)

    def subscribe(self, member: Member, uid: str) -> None:
        """Let a member have a user's pictures, present or to come."""
        if uid not in member.subscriptions:
            member.subscriptions[uid] = Subscription()
            if (publisher := self.members.get(uid)) and publisher.on_air:
                self._begin(member, publisher)

    def subscribe_sound(self, member: Member, uid: str) -> None:
        """Let a member have a user's sound, present or to come."""
        if uid not in member.hearing.subscriptions:
            member.hearing.subscriptions[uid] = False
            if (publisher := self.members.get(uid)) and publisher.on_microphone:
                self._begin_sound(member, publisher)

    def route_sound(self, publisher: Member, block: Block) -> None:
        """Send a member's block of sound to all who hear it."""
        publisher.sound.note(block)
        if not publisher.on_microphone:
            return
        for receiver in self._hearers(publisher):
            if not receiver.hearing.subscriptions[publisher.uid]:
                receiver.hearing.subscriptions[publisher.uid] = True
                receiver.send_event("first_sound", publisher.uid)
                _send_sound_state(receiver, publisher, SoundState.DECODING, SoundReason.UNMUTED)
            receiver.hear(publisher.uid, block, self._sound_fault_of(self.name, receiver.uid))

    def request_key(self, member: Member, uid: str) -> None:
        """Ask a user for a key frame; one that sends nothing yet is not asked."""
        member.intra_requests[uid] += 1
        if (publisher := self.members.get(uid)) and publisher.on_air:
            publisher.key_wanted = True
            publisher.send_event("intra_wanted")

    def route(self, publisher: Member, picture: Picture) -> None:
        """Send a member's picture to all who can decode it."""
        publisher.frames_in += 1
        publisher.picture = picture
        if not publisher.on_air:
            return
        key, publisher.key_wanted = publisher.key_wanted, False
        now = time.monotonic()
        for receiver, subscription in self._subscribers(publisher):
            began = subscription.decoding
            if subscription.decodes(key=key, now=now, interval=self.key_seconds):
                if not began:
                    receiver.send_event(
                        "first_picture", publisher.uid, picture.width, picture.height
                    )
                    _send_state(receiver, publisher, VideoState.DECODING, VideoReason.UNMUTED)
                fault = self._fault_of(self.name, receiver.uid)
                receiver.show(publisher.uid, picture, fault)

    def go_away(self, member: Member, reason: int) -> None:
        """Let a member seem to have left, though it has not."""
        self._disappear(member, reason)
        member.away = True

    def come_back(self, member: Member) -> None:
        """Let it be seen again."""
        if member.away:
            member.away = False
            self._appear(member)

    def interrupt(self, member: Member, reason: int) -> None:
        """Cut a member off while it tries to reconnect; the others wait for it."""
        member.state = State.RECONNECTING
        member.send_event("reconnecting", reason)

    def resume(self, member: Member, reason: int) -> None:
        """Reconnect a member; every decoder concerned needs a key frame again."""
        member.state = State.CONNECTED
        member.send_event("reconnected", reason)
        for subscription in member.subscriptions.values():
            subscription.start_over()
        for _, subscription in self._subscribers(member):
            subscription.start_over()

    def _remove(self, member: Member, leaving: Leaving) -> None:
        if self.members.get(member.uid) is member:
            del self.members[member.uid]
            if not member.away:
                self._disappear(member, leaving)

    def _appear(self, member: Member) -> None:
        for other in self._others(member):
            other.send_event("joined", member.uid)
        self._offer(member)
        self._offer_sound(member)

    def _disappear(self, member: Member, reason: int) -> None:
        if member.on_air:
            self._send_subscribers(member, VideoState.STOPPED, VideoReason.OFFLINE)
        if member.on_microphone:
            self._send_hearers(member, SoundState.STOPPED, SoundReason.OFFLINE)
        for other in self._others(member):
            other.send_event("left", member.uid, reason)

    def _offer(self, publisher: Member) -> None:
        """Begin to send a member's pictures to those who wait for them."""
        if publisher.on_air:
            for receiver in self._others(publisher):
                if publisher.uid in receiver.subscriptions:
                    self._begin(receiver, publisher)

    def _offer_sound(self, publisher: Member) -> None:
        """Begin to send a member's sound to those who wait for it."""
        if publisher.on_microphone:
            for receiver in self._others(publisher):
                if publisher.uid in receiver.hearing.subscriptions:
                    self._begin_sound(receiver, publisher)

    def _begin_sound(self, receiver: Member, publisher: Member) -> None:
        receiver.hearing.subscriptions[publisher.uid] = False
        receiver.send_event("sound_subscribed", publisher.uid)
        _send_sound_state(receiver, publisher, SoundState.STARTING, SoundReason.INTERNAL)

    def _send_hearers(self, publisher: Member, state: SoundState, reason: SoundReason) -> None:
        for receiver in self._hearers(publisher):
            _send_sound_state(receiver, publisher, state, reason)

    def _hearers(self, publisher: Member) -> list[Member]:
        return [
            other
            for other in self._others(publisher)
            if publisher.uid in other.hearing.subscriptions and other.state is State.CONNECTED
        ]

    def _begin(self, receiver: Member, publisher: Member) -> None:
        receiver.subscriptions[publisher.uid].start_over()
        receiver.send_event("video_subscribed", publisher.uid)
        _send_state(receiver, publisher, VideoState.STARTING, VideoReason.INTERNAL)

    def _send_subscribers(self, publisher: Member, state: VideoState, reason: VideoReason) -> None:
        for receiver, _ in self._subscribers(publisher):
            _send_state(receiver, publisher, state, reason)

    def _subscribers(self, publisher: Member) -> Iterator[tuple[Member, Subscription]]:
        for other in self._others(publisher):
            subscription = other.subscriptions.get(publisher.uid)
            if subscription is not None and other.state is State.CONNECTED:
                yield other, subscription

    def _others(self, member: Member) -> list[Member]:
        return [one for one in self.members.values() if one is not member]


def _send_state(
    receiver: Member, publisher: Member, state: VideoState, reason: VideoReason
) -> None:
    receiver.send_event("video_state", publisher.uid, state, reason)


def _send_sound_state(
    receiver: Member, publisher: Member, state: SoundState, reason: SoundReason
) -> None:
    receiver.send_event("sound_state", publisher.uid, state, reason)
