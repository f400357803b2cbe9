"""The interface of a WebRTC engine: one connection with pictures in one direction.

The link uses nothing else of an engine, so that engines can be exchanged. `engine_aiortc` and
`engine_libwebrtc` implement it, `engines` chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from relayd.errors import JoinRefused
from relayd.media.frames import I420, Geometry
from relayd.sound.blocks import Samples

EngineName = Literal["libwebrtc", "aiortc"]

LARGEST_SDP = 64 * 1024
"""Bytes. A normal description of one video track has 3 to 5 kB, with sound up to 8 kB."""
SOUND_BITRATE = 48_000
"""bit/s of a voice: Opus is transparent for speech from about 40 kbit/s mono on."""


class Unacceptable(JoinRefused):
    """The other side takes no such offer, for its codecs or its form: another engine's may fit."""


class PeerState(Enum):
    """The state of a connection."""

    NEW = "new"
    """Created; nothing exchanged yet."""
    CONNECTING = "connecting"
    """Both descriptions are known; ICE looks for a path and DTLS negotiates keys."""
    CONNECTED = "connected"
    """Pictures can flow."""
    DISCONNECTED = "disconnected"
    """It was connected; then the other side closed it, or the path stopped answering."""
    FAILED = "failed"
    """It was never connected: no path was found, or the key exchange failed."""
    CLOSED = "closed"
    """We closed it."""


@dataclass(frozen=True, slots=True)
class PeerStats:
    """What a connection has carried so far; without arguments, that of one that is not up."""

    codec: str = ""
    """The video codec in use: "H264", "VP8" and so on; "" before the negotiation."""
    bytes: int = 0
    """Sent when sending, received when receiving; SRTP and SRTCP."""
    bitrate_kbit: float = 0.0
    """Since the last call of `stats`."""
    target_kbit: float = 0.0
    """What the encoder aims at; 0 for a receiver."""
    packets: int = 0
    """RTP packets of the pictures sent, or received."""
    packets_lost: int = 0
    """Of the pictures, as the receiver counts; for a sender, as its receiver last reported."""
    jitter: float = 0.0
    """Interarrival jitter in seconds (RFC 3550 §6.4.1)."""
    round_trip: float | None = None
    """Seconds; None where the engine has not measured any."""
    pictures: int = 0
    """Handed to the encoder, or received and decoded."""
    pictures_dropped: int = 0
    """Pushed, but replaced by a newer one before the encoder was free."""
    key_frames: int = 0
    """Pictures that need no other to be decoded, of those sent or received; 0 where the engine
    does not count them."""
    freezes: int = 0
    """Times that the received picture stood still for much longer than usual."""
    path: str = ""
    """Kinds of both ends of the path, and its protocol: "host/host udp"; "" before there is one."""


class Peer(Protocol):
    """One connection with one video track in one direction, and perhaps sound with it.

    Made and used in a running event loop; only `push` and `push_sound` may be called from other
    threads. It must be closed. No STUN or TURN server is used: candidates are this machine's own
    addresses.
    """

    @property
    def state(self) -> PeerState:
        """The state of the connection."""

    @property
    def has_sound(self) -> bool:
        """Whether both sides agreed on sound."""

    async def offer_sending(self) -> str:
        """Offer to send: the SDP a WHIP client posts (RFC 9725 §4.2), candidates included."""

    async def offer_receiving(self) -> str:
        """Offer to receive: the SDP a WHEP client posts (draft-ietf-wish-whep)."""

    async def accept_answer(self, sdp: str) -> None:
        """Accept the other side's answer and start connecting.

        Raises JoinRefused when it is no SDP, or does not fit the offer; Unacceptable when it
        rejects the pictures. An answer without the offered sound is accepted.
        """

    async def answer(self, offer_sdp: str) -> str:
        """Answer an offer and start connecting; we send where the offerer only receives.

        Raises JoinRefused when it is no SDP, or offers no video codec that the engine supports.
        """

    def push(self, picture: I420, captured_at: float) -> None:
        """Send `picture` as soon as the encoder is free, unless a newer one comes first.

        From any thread; the array may be reused when this returns. Its RTP timestamp follows
        `captured_at` (monotonic seconds). Does nothing on a connection that does not send.
        """

    def push_sound(self, samples: Samples, at: float) -> None:
        """Send the block that was captured at `at`, monotonic s; from one thread, any.

        Blocks go out in order, as fast as they are pushed. Does nothing on a connection that
        sends no sound.
        """

    async def request_key_frame(self) -> None:
        """Make the next picture one that can be decoded alone.

        A sender encodes it so; a receiver asks for it, where the engine leaves that to us.
        """

    async def stats(self) -> PeerStats:
        """Return what the connection has carried so far."""

    async def close(self) -> None:
        """Close the connection properly and free everything; may be called twice."""


class MakePeer(Protocol):
    """Makes a connection; opens nothing before an offer or answer is asked for."""

    def __call__(
        self,
        *,
        geometry: Geometry,
        fps: float,
        bitrate_kbit: int,
        on_state: Callable[[PeerState], None],
        on_picture: Callable[[I420, float], None] | None = None,
        on_sound: Callable[[Samples, float], None] | None = None,
        sends_sound: bool = False,
    ) -> Peer:
        """Prepare a connection.

        `on_picture(picture, received_at)` is called in the loop's thread with a contiguous
        copy, of whatever even size arrived (`geometry` is what we send). `on_sound(samples, at)`
        likewise with each block of 10 ms; without it no sound is received. With `sends_sound`
        a connection that sends pictures also offers sound, or sends it where it is asked for.
        """
