"""The engine libwebrtc, over wrtc: the congestion control, repairs and buffers of browsers.

VP8, VP9 and AV1 are built in; H.264 is there once OpenH264 was loaded.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Coroutine
from typing import Any

from relayd.errors import JoinRefused
from relayd.media.frames import I420, Geometry
from relayd.rtc.webrtc.engine import SOUND_BITRATE, PeerState, PeerStats
from relayd.rtc.webrtc.libwebrtc import library
from relayd.rtc.webrtc.libwebrtc_stats import count_arrivals, read_stats
from relayd.rtc.webrtc.libwebrtc_tracks import (
    PictureSource,
    SoundSource,
    read_pictures,
    read_sound,
)
from relayd.rtc.webrtc.sdp import (
    check_description,
    describe_fault,
    direction_of,
    has_opus,
    parsable,
    with_bitrates,
    with_unused_sound,
    without_loopback,
    without_unnamed_repairs,
)
from relayd.rtc.webrtc.states import States
from relayd.sound.blocks import Samples

GATHER_TIMEOUT = 2.0
"""s to list this machine's addresses, which takes milliseconds."""
LOWEST_KBIT = 300
"""kbit/s below which the estimate of the path may not bring the pictures."""
FIRST_KBIT = 1500
"""kbit/s to begin with, at most: more would fill the queue of a slow path before the first report
comes back. Probing finds a fast one within a second."""
SILENT_FOR = 3.5
"""s without a packet after which the path counts as lost. libwebrtc checks a good path every 2.5 s,
and by itself notices after 7 to 10."""
_WATCH_EVERY = 0.5
"""s between two looks at whether packets arrive."""
END_TIMEOUT = 1.0
"""s for the readers of tracks to end once these have."""

_ORDER = ("video/h264", "video/vp8", "video/vp9", "video/av1", "video/rtx")
"""The codecs that are offered, the cheapest and most usual first, then repairs."""
_UNWANTED = "profile-id=2"
"""VP9 with ten bits, which are no I420."""
_ROTATION = "urn:3gpp:video-orientation"
"""Not negotiated: senders then turn their pictures themselves."""


class LibwebrtcPeer:
    """One RTCPeerConnection of libwebrtc; see `engine.Peer` for what its methods promise."""

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
        self.geometry, self._fps, self._bitrate_kbit = geometry, fps, bitrate_kbit
        self._states, self._on_picture = States(on_state), on_picture
        self._on_sound, self._sends_sound = on_sound, sends_sound
        self._closing = False
        self._pictures: PictureSource | None = None
        self._voice: SoundSource | None = None
        self._sound: Any = None
        """The transceiver of the sound."""
        self._transport: Any = None
        self._readers: set[asyncio.Task[None]] = set()
        self._received = 0
        self._last_stats = (time.monotonic(), 0)
        self._gathered = asyncio.Event()
        self._connection: Any = library.RTCPeerConnection(
            library.RTCConfiguration(bundle_policy="max-bundle")
        )
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("icegatheringstatechange", self._gathering_changed)
        self._connection.on("track", self._track_arrived)

    @property
    def state(self) -> PeerState:
        """The state of the connection."""
        return self._states.now

    @property
    def has_sound(self) -> bool:
        """Whether both sides agreed on sound."""
        return self._sound is not None and self._sound.current_direction in ("sendonly", "recvonly")

    async def offer_sending(self) -> str:
        """Offer to send: the SDP a WHIP client posts (RFC 9725 §4.2), candidates included."""
        self._pictures = PictureSource()
        if self._sends_sound:
            self._voice = SoundSource()
        return await self._offer(self._pictures.track, self._voice and self._voice.track)

    async def offer_receiving(self) -> str:
        """Offer to receive: the SDP a WHEP client posts (draft-ietf-wish-whep)."""
        return await self._offer("video", "audio" if self._on_sound else None)

    async def accept_answer(self, sdp: str) -> None:
        """Accept the other side's answer and start connecting; JoinRefused if it is unusable."""
        check_description(sdp, "answer")
        if self._sound is not None:
            sdp = with_unused_sound(sdp, self._connection.local_description.sdp)
        await self._take_remote(sdp, "answer")
        await self._keep_frame_rate()

    async def answer(self, offer_sdp: str) -> str:
        """Answer an offer and start connecting; JoinRefused if it is unusable."""
        check_description(offer_sdp, "offer")
        if direction_of(offer_sdp, "video") == "recvonly":
            self._pictures = PictureSource()
        await self._take_remote(offer_sdp, "offer")
        why = await _fault_of(self._answer(offer_sdp))
        if why:
            raise JoinRefused(f"the SDP offer cannot be answered: {why}")
        await self._keep_frame_rate()
        answer = await self._local_sdp()
        if direction_of(answer, "video") == "inactive":
            raise JoinRefused("the SDP offer has no video codec that is known here")
        return answer

    def push(self, picture: I420, captured_at: float) -> None:
        """Send `picture` as soon as the encoder is free, unless a newer one comes first."""
        if self._pictures is not None:
            self._pictures.push(picture, captured_at)

    def push_sound(self, samples: Samples, at: float) -> None:
        """Send the block that was captured at `at`, monotonic s; from one thread, any."""
        if self._voice is not None and self.has_sound and self.state is PeerState.CONNECTED:
            self._voice.push(samples, at)

    async def request_key_frame(self) -> None:
        """Encode the next picture as a key frame; a receiver asks by itself whenever it must."""
        for sender in self._connection.get_senders() if self._connection else ():
            if sender.track is not None and sender.track.kind == "video":
                options = library.RTCSetParameterOptions([library.RTCEncodingOptions(True)])
                await sender.set_parameters(sender.get_parameters(), options)

    async def stats(self) -> PeerStats:
        """Return what the connection has carried so far."""
        report = await self._report()
        source = self._pictures
        stats = read_stats(
            report,
            sending=source is not None,
            since=self._last_stats,
            pictures=source.taken if source else self._received,
            dropped=source.dropped if source else 0,
        )
        self._last_stats = (time.monotonic(), stats.bytes)
        return stats

    async def close(self) -> None:
        """Close the connection properly and free everything; may be called twice."""
        if self._closing:
            return
        self._closing = True
        for source in (self._pictures, self._voice):
            if source is not None:
                await source.close()
        self._connection.close()
        self._pictures = self._voice = self._sound = self._connection = self._transport = None
        source = None
        self._states.enter(PeerState.CLOSED)
        if self._readers:
            _, hanging = await asyncio.wait(self._readers, timeout=END_TIMEOUT)
            for reader in hanging:
                reader.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
        await asyncio.sleep(0)  # the loop holds some of its objects as well
        gc.collect()  # they refer to each other, and keep threads and memory until then

    async def _offer(self, video: Any, sound: Any) -> str:
        direction = "sendonly" if self._pictures else "recvonly"
        transceiver = self._connection.add_transceiver(video, self._init(direction, "video"))
        self._choose_codecs(transceiver)
        if sound is not None:
            self._sound = self._connection.add_transceiver(sound, self._init(direction, "audio"))
            self._choose_codecs(self._sound)
        await self._connection.set_local_description(await self._connection.create_offer())
        return await self._local_sdp()

    async def _local_sdp(self) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_TIMEOUT):
                await self._gathered.wait()
        return without_loopback(str(self._connection.local_description.sdp))

    def _init(self, direction: Any, kind: str) -> Any:
        encoding = library.RTCRtpEncodingParameters(max_bitrate=self._cap(kind))
        encodings = [encoding] if direction == "sendonly" else []
        return library.RTCRtpTransceiverInit(direction=direction, send_encodings=encodings)

    def _cap(self, kind: str) -> int:
        return self._bitrate_kbit * 1000 if kind == "video" else SOUND_BITRATE

    def _choose_codecs(self, transceiver: Any) -> None:
        """Negotiate the codecs that relayd wants, and no rotation."""
        kind = transceiver.receiver.track.kind
        side = library.RTCRtpSender if self._pictures else library.RTCRtpReceiver
        offered = side.get_capabilities(kind).codecs
        if kind == "audio":
            wanted = [codec for codec in offered if codec.mime_type.lower() == "audio/opus"]
        else:
            wanted = [
                codec
                for mime in _ORDER
                for codec in offered
                if codec.mime_type.lower() == mime and codec.sdp_fmtp_line != _UNWANTED
            ]
        transceiver.set_codec_preferences(wanted)
        extensions = transceiver.get_header_extensions_to_negotiate()
        for extension in extensions:
            if extension.uri == _ROTATION:
                extension.direction = "stopped"
        transceiver.set_header_extensions_to_negotiate(extensions)

    async def _answer(self, offer: str) -> None:
        for transceiver in self._connection.get_transceivers():
            await self._prepare(transceiver, offer)
        await self._connection.set_local_description(await self._connection.create_answer())

    async def _prepare(self, transceiver: Any, offer: str) -> None:
        """Say what is sent, or received, in one section of an offer."""
        if transceiver.receiver.track.kind == "video":
            self._choose_codecs(transceiver)
            transceiver.direction = "sendonly" if self._pictures else "recvonly"
            if self._pictures:
                await transceiver.sender.replace_track(self._pictures.track)
            return
        direction = direction_of(offer, "audio")
        if has_opus(offer) and self._sends_sound and direction == "recvonly":
            self._voice = SoundSource()
            await transceiver.sender.replace_track(self._voice.track)
            transceiver.direction = "sendonly"
        elif has_opus(offer) and self._on_sound and direction in ("sendonly", "sendrecv"):
            transceiver.direction = "recvonly"
        else:
            transceiver.stop()
            return
        self._choose_codecs(transceiver)
        self._sound = transceiver

    async def _take_remote(self, sdp: str, kind: Any) -> None:
        sdp = without_unnamed_repairs(parsable(sdp))
        if self._pictures is not None:
            first = min(FIRST_KBIT, self._bitrate_kbit)
            lowest = min(LOWEST_KBIT, self._bitrate_kbit)
            sdp = with_bitrates(sdp, lowest, first, self._bitrate_kbit)
        description = library.RTCSessionDescriptionInit(kind, sdp)
        why = await _fault_of(self._connection.set_remote_description(description))
        if why:
            raise JoinRefused(f"the SDP {kind} cannot be used: {why}")

    async def _keep_frame_rate(self) -> None:
        """Lower quality and then size on a bad path, not the rate; no delay for smoothness."""
        for transceiver in self._connection.get_transceivers():
            transceiver.receiver.jitter_buffer_target = 0
            sender = transceiver.sender
            if sender.track is None:
                continue
            parameters = sender.get_parameters()
            for encoding in parameters.encodings:
                encoding.max_bitrate = self._cap(sender.track.kind)
            if sender.track.kind == "video":
                parameters.degradation_preference = "maintain-framerate"
            with contextlib.suppress(library.InvalidStateError):  # a section that was rejected
                await sender.set_parameters(parameters)

    def _gathering_changed(self, _event: object) -> None:
        if self._connection and self._connection.ice_gathering_state == "complete":
            self._gathered.set()

    def _state_changed(self, _event: object) -> None:
        if self._connection is None:
            return
        reported = str(self._connection.connection_state.value)
        if reported in ("new", "connecting", "connected"):
            if reported == "connected" and not self._states.was_connected:
                self._came_up()
            self._states.enter(PeerState(reported))
        else:
            self._states.lose()

    def _came_up(self) -> None:
        if self._pictures is not None:
            self._pictures.start()
        self._transport = self._connection.get_transceivers()[0].receiver.transport
        self._transport.on("statechange", self._transport_changed)
        self._read(self._watch())

    def _transport_changed(self, _event: object) -> None:
        """Notice at once that the other side closed the connection."""
        if self._transport and self._transport.state in ("closed", "failed"):
            self._states.enter(PeerState.DISCONNECTED)

    async def _watch(self) -> None:
        """Notice that nothing arrives any more."""
        seen, since = -1, time.monotonic()
        while self.state is PeerState.CONNECTED:
            await asyncio.sleep(_WATCH_EVERY)
            report = await self._report()
            if (arrived := count_arrivals(report)) != seen:
                seen, since = arrived, time.monotonic()
            elif time.monotonic() - since > SILENT_FOR:
                self._states.enter(PeerState.DISCONNECTED)

    async def _report(self) -> dict[str, Any]:
        """Return the statistics; empty once closed."""
        with contextlib.suppress(library.InvalidStateError):  # closed meanwhile
            return dict(await self._connection.get_stats()) if self._connection else {}
        return {}

    def _track_arrived(self, event: Any) -> None:
        if event.track.kind == "video":
            self._read(read_pictures(event.track, self._take_picture))
        elif self._on_sound is not None:
            self._read(read_sound(event.receiver, self._on_sound))

    def _read(self, reading: Coroutine[Any, Any, None]) -> None:
        reader = asyncio.ensure_future(reading)
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    def _take_picture(self, picture: I420, received_at: float) -> None:
        self._received += 1
        if self._on_picture is not None:
            self._on_picture(picture, received_at)


async def _fault_of(work: Coroutine[Any, Any, None]) -> str:
    """Do the work, and describe its fault; "" without one.

    The fault itself is not kept: its traceback would keep the connection.
    """
    try:
        await work
    except Exception as fault:  # noqa: BLE001 - many kinds, by what is wrong
        return describe_fault(fault)
    return ""
