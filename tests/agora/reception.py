"""Joins: members are admitted or refused, and served until they disconnect."""

import asyncio
import random

from tests.agora.channel import Channel
from tests.agora.connection import Connection
from tests.agora.faults import Faults, JoinFault
from tests.agora.member import Member, State
from tests.agora.pictures import Picture
from tests.agora.sounds import Block
from tests.agora.wire import Message, Reason

STATS_INTERVAL = 2.0
"""s between two `stats`, as at Agora."""
ANY_UID = {"", "0"}
"""What a user joins as who leaves the choice to the server."""
LARGEST_UID = 2**32 - 1


class Reception:
    """All channels, and all who came."""

    def __init__(self) -> None:
        self.channels: dict[tuple[str, str], Channel] = {}
        """By app id and name; closed ones stay until clear(), for their refusals."""
        self.members: list[Member] = []
        """All since the last clear(), the oldest first."""
        self.faults = Faults()
        self._lobby = Channel("", token="", uids=(), key_seconds=0.0)
        """Holds members without a channel."""

    async def serve(self, connection: Connection, words: tuple[str, ...]) -> None:
        """Answer a `join`, then handle the member's messages until it disconnects."""
        app_id, channel, uid, token, role = words
        member = Member(
            connection, app_id=app_id, channel=channel, uid=uid, token=token, role=int(role)
        )
        self.members.append(member)
        admission = asyncio.create_task(self._answer(member))
        try:
            async for message in connection.messages():
                self._handle(member, message)
        finally:
            admission.cancel()
            await asyncio.gather(admission, return_exceptions=True)
            (self.channel_of(member) or self._lobby).lose(member)

    def channel_of(self, member: Member) -> Channel | None:
        """Where a member is now, if anywhere."""
        channel = self.channels.get((member.app_id, member.channel_name))
        return channel if channel and channel.members.get(member.uid) is member else None

    def clear(self) -> None:
        """Remove all faults, end and forget all channels and members."""
        self.faults.clear()
        for channel in self.channels.values():
            channel.close()
        self.channels.clear()
        self.members.clear()

    async def report(self) -> None:
        """Tell all members about their network, now and then."""
        while True:
            await asyncio.sleep(STATS_INTERVAL)
            for member in self.members:
                self.report_to(member)

    def report_to(self, member: Member) -> None:
        """Tell a member about its network: kbit/s as the encoders are set."""
        if channel := self.channel_of(member):
            publishers = [
                channel.members[uid] for uid in member.subscriptions if uid in channel.members
            ]
            sent, received = member.kbit, sum(publisher.kbit for publisher in publishers)
            member.send_event("stats", sent, received, *member.network.values())

    async def _answer(self, member: Member) -> None:
        member.send_event("connecting", Reason.CONNECTING)
        if fault := self.faults.take_join(member.uid):
            await asyncio.sleep(fault.delay)
            if fault.refuses:
                _refuse(member, fault)
                return
        if member.state is State.CONNECTING:  # it may have left meanwhile
            self._admit(member)

    def _admit(self, member: Member) -> None:
        channel = self.channels.get((member.app_id, member.channel_name))
        if channel is None:
            known = any(member.app_id == app_id for app_id, _ in self.channels)
            member.end(State.FAILED, Reason.INVALID_CHANNEL if known else Reason.INVALID_APP_ID)
            return
        if member.uid in ANY_UID and not channel.uids:
            member.uid = str(random.randint(1, LARGEST_UID))
        if reason := channel.refusal(member.uid, member.token):
            member.end(State.FAILED, reason)
        else:
            channel.admit(member)

    def _handle(self, member: Member, message: Message) -> None:
        """Carry out a member's message; ValueError when it is invalid."""
        place = self.channel_of(member) or self._lobby
        match message.name, *message.words:
            case "frame", width, height, rotation, _timestamp:
                size = int(width), int(height)
                picture = Picture.received(*size, int(rotation), message.payload)
                place.route(member, picture)
            case "sound", rate, channels, pts_ms, sent_us:
                block = Block(
                    int(rate), int(channels), int(pts_ms), int(sent_us) / 1e6, message.payload
                )
                place.route_sound(member, block)
            case "subscribe_sound", uid, plays_out:
                member.hearing.plays_out = plays_out == "1"
                place.subscribe_sound(member, uid)
            case "publish", "video" | "audio" as kind:
                place.publish(member, kind)
            case "unpublish", "video" | "audio" as kind:
                place.unpublish(member, kind)
            case "subscribe", uid:
                place.subscribe(member, uid)
            case "intra", uid:
                place.request_key(member, uid)
            case ("leave",):
                place.leave(member)
            case _:
                member.note(message)


def _refuse(member: Member, fault: JoinFault) -> None:
    if fault.error is not None:
        member.send_event("error", fault.error, "the join was refused")
    if fault.reason is not None:
        member.end(State.FAILED, fault.reason)
