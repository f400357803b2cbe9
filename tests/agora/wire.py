"""The protocol between the stand-in library, the hub, the swap engine and the tests.

A connection is a Unix stream socket to the path in the environment's XDG_AGORA_HUB, a name that
relayd lets through to its children as it does all of XDG. A message is one ASCII line, words
between single spaces, ended by a line feed, then a payload. The last word is the payload's length
in bytes (0: none). A word that is text is percent-encoded as by `urllib.parse.quote(text,
safe="")`; the empty text is a lone "%". The first message names the sender:

    service PID APP_ID PROFILE SCENARIO STRING_UID VIDEO 0      a service was initialised
    join APP_ID CHANNEL UID TOKEN ROLE 0                       somebody connects to a channel
    control 0                                                  a test

After `service` the hub answers any number of `hang`, `fail` lines and then `inited RETURN 0`;
the library returns RETURN (0: ok) from agora_service_initialize, which shows a fault of its own
among those lines. On the same socket it sends, calls made before `service` too:

    call NAME THREAD IN_CALLBACK SERVICE_PID 0     every API function called (NAME without
                                                   "agora_"), THREAD is gettid(), IN_CALLBACK
                                                   0 or 1
    applied 0                                      a `hang` or `fail` that came after `inited` is
                                                   set; a call under way may not show it

and the hub may send at any time

    hang NAME 0              from now on calls of agora_NAME never return
    fail NAME RETURN 0       from now on calls of agora_NAME return RETURN and do nothing
    abort 0 | segv 0         end the process by SIGABRT / by a write to address 0

After `join` (sent at agora_rtc_conn_connect; what was set before, publish, subscribe, encoder,
follows at once) the member sends

    publish KIND 0 | unpublish KIND 0        KIND is video or audio
    subscribe UID 0 | unsubscribe UID 0      video
    intra UID 0                              asks for a key frame
    renew TOKEN 0
    encoder WIDTH HEIGHT FPS BITRATE MIN_BITRATE CODEC 0          bit/s
    frame WIDTH HEIGHT ROTATION TIMESTAMP LENGTH                  payload: I420, no padding
    subscribe_sound UID PLAYOUT 0            PLAYOUT: 0 or 1, enable_audio_recording_or_playout
    unsubscribe_sound UID 0
    sound_profile PROFILE SCENARIO 0         of the sound that is published
    sound RATE CHANNELS PTS_MS SENT_US LENGTH                     payload: PCM, 16 bit; SENT_US is
                                             the monotonic time of the call that pushed it
    leave 0                                  agora_rtc_conn_disconnect; hub answers `disconnected 5`

and the hub sends, each an observer's callback in the library:

    connecting REASON 0 | connected REASON UID 0 | disconnected REASON 0
    reconnecting REASON 0 | reconnected REASON 0 | lost 0 | failed REASON 0
    error CODE TEXT 0 | will_expire TOKEN 0 | did_expire 0
    joined UID 0 | left UID REASON 0
    video_subscribed UID 0 | video_state UID STATE REASON 0 | first_picture UID WIDTH HEIGHT 0
    intra_wanted 0
    stats TX_VIDEO_KBIT RX_VIDEO_KBIT RTT_MS TX_LOSS_PERCENT RX_LOSS_PERCENT 0
    frame UID WIDTH HEIGHT Y_STRIDE U_STRIDE V_STRIDE ROTATION RENDER_MS LENGTH
                             payload: Y plane (Y_STRIDE * HEIGHT bytes), then U, then V
                             (STRIDE * ceil(HEIGHT / 2) bytes each)
    sound_subscribed UID 0 | sound_state UID STATE REASON 0 | first_sound UID 0
    sound UID RATE CHANNELS PRESENTATION_MS LENGTH                payload: PCM, 16 bit

Reasons and states are Agora's numbers: see Reason, VideoState and SoundState below. The hub ends a
membership by `failed` (a same uid elsewhere, a closed channel), never by `disconnected`, unless
a test asks for it. ROTATION is how far a picture must be turned clockwise to be upright. The
first picture of a user comes after the receiver's `intra`, or when the channel's key-frame
interval has passed; `first_picture` reports it.

After `control` each side sends one JSON object a line. A request `{"do": NAME, …}` is answered by
`{"ok": RESULT}` or `{"error": "what is wrong, as text"}`; tests.agora.controls has the requests.
"""

from enum import IntEnum
from typing import NamedTuple
from urllib.parse import quote, unquote

Payload = bytes | bytearray | memoryview
"""The bytes after a line."""


class Reason(IntEnum):
    """Why a connection changed its state."""

    CONNECTING = 0
    JOINED = 1
    INTERRUPTED = 2
    BANNED = 3
    JOIN_FAILED = 4
    LEFT = 5
    INVALID_APP_ID = 6
    INVALID_CHANNEL = 7
    INVALID_TOKEN = 8
    TOKEN_EXPIRED = 9
    REJECTED = 10
    KEEP_ALIVE_TIMEOUT = 14
    REJOINED = 15
    LOST = 16
    SAME_UID = 19
    TOO_MANY_BROADCASTERS = 20
    LICENSE = 21
    CERTIFICATE = 22
    INCONSISTENT_APP_ID = 24


class VideoState(IntEnum):
    """The state of a remote user's video."""

    STOPPED = 0
    STARTING = 1
    DECODING = 2


class VideoReason(IntEnum):
    """Why a remote user's video changed its state."""

    INTERNAL = 0
    MUTED = 5
    UNMUTED = 6
    OFFLINE = 7


class SoundState(IntEnum):
    """The state of a remote user's sound."""

    STOPPED = 0
    STARTING = 1
    DECODING = 2


class SoundReason(IntEnum):
    """Why a remote user's sound changed its state."""

    INTERNAL = 0
    MUTED = 5
    UNMUTED = 6
    OFFLINE = 7


class Leaving(IntEnum):
    """How another user left."""

    QUIT = 0
    DROPPED = 1


class Message(NamedTuple):
    """One message, its words decoded."""

    name: str
    words: tuple[str, ...]
    payload: Payload


def encode(name: str, *words: str | int, length: int = 0) -> bytes:
    """Return the line of a message whose payload has `length` bytes."""
    encoded = (quote(str(word), safe="") or "%" for word in words)
    return " ".join((name, *encoded, str(length))).encode("ascii") + b"\n"


def decode(line: bytes) -> tuple[str, tuple[str, ...], int]:
    """Return a line's name, its words, and the length of the payload to come, in bytes.

    Raises ValueError for what is no message.
    """
    name, *words = line.decode("ascii").rstrip("\n").split(" ")
    if not words:
        raise ValueError(f"{name!r} has no payload length")
    length = int(words.pop())
    if length < 0:
        raise ValueError(f"{name} has a payload of {length} bytes")
    return name, tuple("" if word == "%" else unquote(word) for word in words), length
