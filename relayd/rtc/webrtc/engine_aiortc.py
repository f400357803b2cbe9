"""The engine aiortc: one connection with one video track in one direction.

It has what WHIP and WHEP share, for both ends: non-trickle SDP, H.264 before VP8, the newest
picture first, and sound where it is wanted. Only this module, `pictures` and `opus` import aiortc.
"""

import asyncio
import time
from collections.abc import Callable

import aioice.ice
import av  # aiortc's tracks carry av.VideoFrame
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
    rtcrtpreceiver,
)
from aiortc.codecs import h264, vpx
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamError

from relayd import logs
from relayd.errors import JoinRefused
from relayd.media.frames import I420, Geometry
from relayd.rtc.webrtc.engine import PeerState, PeerStats
from relayd.rtc.webrtc.freezes import FreezeCounter
from relayd.rtc.webrtc.opus import ArrivalBuffer, Listener, VoiceTrack, lose_packets, opus_alone
from relayd.rtc.webrtc.pictures import (
    VIDEO_CLOCK_RATE,
    PictureTrack,
    PromptJitterBuffer,
    SteadyEstimate,
)
from relayd.rtc.webrtc.sdp import (
    check_description,
    codec_of,
    describe_fault,
    direction_of,
    has_opus,
    parsable,
    with_unused_sound,
)
from relayd.rtc.webrtc.states import States
from relayd.sound.blocks import Samples

CONSENT_INTERVAL = 0.5
"""s between two consent checks. RFC 7675 §5.1 proposes 5 s and an expiry of 30 s, which would
freeze the picture for half a minute; a check has a hundred bytes."""
CONSENT_FAILURES = 3
"""Checks in a row without an answer within 0.5 s, after which the path counts as lost."""

_log = logs.get("peer")

aioice.ice.CONSENT_INTERVAL = CONSENT_INTERVAL  # type: ignore[assignment]  # an int upstream
aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES

_all_host_addresses = aioice.ice.get_host_addresses


def _usable_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:  # noqa: FBT001 - aioice's signature
    """Return the addresses to offer; the loopback one if there is no other.

    RFC 8445 §5.1.1.1 keeps loopback out of the candidates, so aioice offers nothing at all
    on a machine whose only interface that is up is `lo`. A relay and an emulator on that
    machine can still connect: nobody else will see the candidate.
    """
    return _all_host_addresses(use_ipv4, use_ipv6) or ["127.0.0.1"]


aioice.ice.get_host_addresses = _usable_host_addresses


def _make_jitter_buffer(
    capacity: int,
    prefetch: int = 0,
    is_video: bool = False,  # noqa: FBT001, FBT002 - aiortc's signature
) -> JitterBuffer | ArrivalBuffer:
    return PromptJitterBuffer(capacity, prefetch, is_video) if is_video else ArrivalBuffer()


rtcrtpreceiver.RemoteBitrateEstimator = SteadyEstimate  # type: ignore[attr-defined,assignment]  # another class
rtcrtpreceiver.JitterBuffer = _make_jitter_buffer  # type: ignore[attr-defined,assignment]  # not exported; a class


class AiortcPeer:
    """One RTCPeerConnection of aiortc; see `engine.Peer` for what its methods promise."""

    def __init__(
        self,
        *,
        geometry: Geometry,
        fps: float,
        bitrate_kbit: int,
        on_state: Callable[[PeerState], None],
        on_picture: Callable[[I420, float], None] | None = None,
        on_sound: Callable[[Samples, float], None] | None = None,
        sends_sound: bool = False,
    ) -> None:
        """Prepare a connection, as `engine.MakePeer` says."""
        self.geometry = geometry
        self._states, self._on_picture = States(on_state), on_picture
        self._closing = False
        self._on_sound, self._sends_sound = on_sound, sends_sound
        self._outbound: PictureTrack | None = None
        self._voice: VoiceTrack | None = None
        self._sound: RTCRtpTransceiver | None = None
        self._sound_loss = 0.0
        self._drains: set[asyncio.Task[None]] = set()
        self._received = self._key_frames = 0
        self._freezes = FreezeCounter()
        self._bitrate_kbit = bitrate_kbit
        self._last_stats = (time.monotonic(), 0)
        _set_encoders(bitrate_kbit, fps)
        # aiortc asks a public STUN server unless the list is given, and empty.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("track", self._track_arrived)

    @property
    def state(self) -> PeerState:
        """The state of the connection."""
        return self._states.now

    async def offer_sending(self) -> str:
        """Offer to send: the SDP a WHIP client posts (RFC 9725 §4.2), candidates included."""
        self._outbound = PictureTrack()
        if self._sends_sound:
            self._voice = VoiceTrack()
        return await self._offer(self._outbound, self._voice, "sendonly")

    async def offer_receiving(self) -> str:
        """Offer to receive: the SDP a WHEP client posts (draft-ietf-wish-whep)."""
        return await self._offer("video", "audio" if self._on_sound else None, "recvonly")

    async def accept_answer(self, sdp: str) -> None:
        """Accept the other side's answer and start connecting; JoinRefused if it is unusable."""
        if self._sound is not None:
            sdp = with_unused_sound(sdp, self._connection.localDescription.sdp)
        await self._take_remote(sdp, "answer")

    async def answer(self, offer_sdp: str) -> str:
        """Answer an offer and start connecting; JoinRefused if it is unusable."""
        self._prepare_sound(offer_sdp)
        await self._take_remote(offer_sdp, "offer")
        try:
            if direction_of(offer_sdp, "video") == "recvonly":
                self._outbound = PictureTrack()
                self._connection.addTrack(self._outbound)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as fault:
            raise JoinRefused(
                f"the SDP offer cannot be answered: {describe_fault(fault)}"
            ) from fault
        return str(self._connection.localDescription.sdp)

    def push(self, picture: I420, captured_at: float) -> None:
        """Send `picture` as soon as the encoder is free, unless a newer one comes first."""
        if self._outbound is not None:
            self._outbound.push(picture, captured_at)

    @property
    def has_sound(self) -> bool:
        """Whether both sides agreed on sound."""
        return self._sound is not None and self._sound.currentDirection in ("sendonly", "recvonly")

    def push_sound(self, samples: Samples, at: float) -> None:
        """Send the block that was captured at `at`, monotonic s; from one thread, any."""
        if self._voice is not None and self.has_sound:
            self._voice.push(samples, at)

    def lose_sound(self, share: float) -> None:
        """Lose that share (0 to 1) of the packets of sound, for tests of the other side."""
        if self._sound is not None and not self._sound_loss and share:
            lose_packets(self._sound.sender, lambda: self._sound_loss)
        self._sound_loss = share

    async def request_key_frame(self) -> None:
        """Encode the next picture as a key frame, or ask the sender to."""
        for transceiver in self._connection.getTransceivers():
            if transceiver.kind != "video":
                continue
            if self._outbound is not None:
                transceiver.sender._send_keyframe()  # noqa: SLF001 - no other way
                continue
            for source in transceiver.receiver.getSynchronizationSources():  # repairs, too
                await transceiver.receiver._send_rtcp_pli(source.source)  # noqa: SLF001 - no other way

    async def stats(self) -> PeerStats:
        """Return what the connection has carried so far."""
        reports = list((await self._connection.getStats()).values())
        video = [r for r in reports if r.type == "transport" or r.kind == "video"]
        sending = self._outbound is not None
        ours = [r for r in video if r.type == ("outbound-rtp" if sending else "inbound-rtp")]
        reception = [r for r in video if r.type == "remote-inbound-rtp"] if sending else ours
        transports = [r for r in video if r.type == "transport"]
        carried = sum(t.bytesSent if sending else t.bytesReceived for t in transports)
        now, (then, carried_then) = time.monotonic(), self._last_stats
        self._last_stats = (now, carried)
        return PeerStats(
            codec=self._codec(),
            bytes=carried,
            bitrate_kbit=(carried - carried_then) * 8e-3 / max(now - then, 1e-3),
            target_kbit=self._bitrate_kbit if sending else 0.0,
            packets=sum(r.packetsSent if sending else r.packetsReceived for r in ours),
            packets_lost=sum(r.packetsLost for r in reception),
            jitter=max((r.jitter for r in reception), default=0) / VIDEO_CLOCK_RATE,
            round_trip=reception[0].roundTripTime if sending and reception else None,
            pictures=self._outbound.taken if self._outbound else self._received,
            pictures_dropped=self._outbound.dropped if self._outbound else 0,
            key_frames=self._key_frames,
            freezes=self._freezes.count,
            path=self._path(),
        )

    async def close(self) -> None:
        """Close the connection properly and free everything; may be called twice."""
        self._closing = True
        for track in (self._outbound, self._voice):
            if track is not None:
                track.stop()
        await self._connection.close()
        for drain in self._drains:
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        self._states.enter(PeerState.CLOSED)

    async def vanish(self) -> None:
        """Free everything without telling the other side, as after a crash or a cut cable."""
        self._closing = True
        for transceiver in self._connection.getTransceivers():
            if transceiver.sender.transport is not None:
                await transceiver.sender.transport.transport.stop()
        await self.close()

    async def _offer(
        self, video: MediaStreamTrack | str, sound: MediaStreamTrack | str | None, direction: str
    ) -> str:
        transceiver = self._connection.addTransceiver(video, direction=direction)
        codecs = RTCRtpSender.getCapabilities("video").codecs
        # H.264 first: every WHIP server supports it. VP8 second. RTX as listed.
        transceiver.setCodecPreferences(sorted(codecs, key=lambda codec: codec.name != "H264"))
        if sound is not None:
            self._add_sound(sound, direction)
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return str(self._connection.localDescription.sdp)

    def _prepare_sound(self, offer: str) -> None:
        """Take the offered sound, if it is wanted here: aiortc must know before the offer."""
        if not has_opus(offer):
            return
        direction = direction_of(offer, "audio")
        if self._sends_sound and direction == "recvonly":
            self._voice = VoiceTrack()
            self._add_sound(self._voice, "sendonly")
        elif self._on_sound is not None and direction in ("sendonly", "sendrecv"):
            self._add_sound("audio", "recvonly")

    def _add_sound(self, track_or_kind: MediaStreamTrack | str, direction: str) -> None:
        self._sound = self._connection.addTransceiver(track_or_kind, direction=direction)
        self._sound.setCodecPreferences(opus_alone())

    async def _take_remote(self, sdp: str, kind: str) -> None:
        check_description(sdp, kind)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(parsable(sdp), kind))
        except Exception as fault:  # aiortc's parser may raise anything
            raise JoinRefused(f"the SDP {kind} cannot be used: {describe_fault(fault)}") from fault

    def _state_changed(self) -> None:
        reported = self._connection.connectionState
        if reported not in ("failed", "closed"):
            self._states.enter(PeerState(reported))
        elif not self._closing:  # aiortc also reports "closed" when the path is lost
            self._states.lose()

    def _track_arrived(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._on_sound is not None:
            reading = Listener(track, self._on_sound).run()
        else:
            reading = self._drain(track)
        drain = asyncio.ensure_future(reading)
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def _drain(self, track: MediaStreamTrack) -> None:
        """Read the track as fast as it fills: aiortc's queue behind it is unbounded."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.VideoFrame):
                self._received += 1
                self._key_frames += frame.key_frame
                self._freezes.put(time.monotonic())
                if self._on_picture is not None:
                    self._on_picture(_to_i420(frame), time.monotonic())

    def _codec(self) -> str:
        local, remote = self._connection.localDescription, self._connection.remoteDescription
        answers = [one for one in (local, remote) if one is not None and one.type == "answer"]
        return codec_of(answers[0].sdp) if answers else ""

    def _path(self) -> str:
        """Name the kinds of both ends of the path; aiortc's own statistics have no pair."""
        for transceiver in self._connection.getTransceivers():
            if transceiver.kind == "video" and transceiver.receiver.transport is not None:
                ice = transceiver.receiver.transport.transport._connection  # noqa: SLF001 - no other way
                for pair in ice._nominated.values():  # noqa: SLF001 - no other way
                    local, remote = pair.local_candidate, pair.remote_candidate
                    return f"{local.type}/{remote.type} {local.transport.lower()}"
        return ""


def _set_encoders(bitrate_kbit: int, fps: float) -> None:
    """Fix the bitrate of aiortc's encoders.

    The limits are module variables there, so this applies to the whole process. Both
    bounds are equal because its bandwidth estimate (REMB) is made at the receiver, depends on
    Python's timing of packets, and lowers the quality even on a perfect path. x264 divides the
    bitrate by the configured frame rate: with aiortc's 30, 20 fps get only two thirds.
    """
    bits = bitrate_kbit * 1000
    h264.DEFAULT_BITRATE = h264.MIN_BITRATE = h264.MAX_BITRATE = bits
    vpx.DEFAULT_BITRATE = vpx.MIN_BITRATE = vpx.MAX_BITRATE = bits
    SteadyEstimate.bitrate = bits
    h264.MAX_FRAME_RATE = max(1, round(fps))


def _to_i420(frame: av.VideoFrame) -> I420:
    """Return a decoded frame as a contiguous I420 array, odd sizes cut to even ones."""
    width, height = max(2, frame.width & ~1), max(2, frame.height & ~1)
    if frame.format.name != "yuv420p" or (width, height) != (frame.width, frame.height):
        frame = frame.reformat(width, height, "yuv420p")
    return np.ascontiguousarray(frame.to_ndarray())
