"""Agora's SDK as relayd uses it: one service per process, one connection per link.

All calls are made from one thread, none from a callback, which could re-enter the SDK's queue.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayd import logs
from relayd.errors import JoinFailed
from relayd.logs import LogEvent
from relayd.media.frames import I420, Geometry
from relayd.rtc.agora import error_codes
from relayd.rtc.agora.events import ReceivedBlock, ReceivedFrame, SdkEvent
from relayd.rtc.agora.observers import (
    ConnectionObserver,
    FrameObserver,
    SoundObserver,
    UserObserver,
)
from relayd.rtc.agora.wrapper import (
    AgoraService,
    AgoraServiceConfig,
    AudioProfileType,
    AudioPublishType,
    AudioScenarioType,
    ChannelProfileType,
    ClientRoleType,
    ExternalVideoFrame,
    RTCConnConfig,
    RTCConnection,
    RtcConnectionPublishConfig,
    VideoCodecType,
    VideoDimensions,
    VideoEncoderConfiguration,
    VideoPublishType,
    VideoStreamType,
    VideoSubscriptionOptions,
)
from relayd.sound.blocks import RATE, Samples

_RAW_DATA, _I420 = 1, 1
"""Of an ExternalVideoFrame: its type, its pixel format (0, the default, is invalid)."""
_STAMPED_ON_ARRIVAL = 0
"""ms; the SDK drops frames whose own time it considers wrong. Of pictures and sound alike: with
one of them stamped, they would not be on one clock."""
_MONO = 1
_LOG_KBYTES = 5 * 1024
"""Size at which the SDK's log is rotated."""

_log = logs.get("agora")

_kept: list[Any] = []
"""What the native library may still call: the wrapper releases it at once, and a callback that
waits for the interpreter's lock would then run freed memory. Kept until the process ends."""


class Service:
    """The SDK's service: made once, kept for the life of the process, never released.

    Releasing it may hang, and a second one in a process is discouraged; the process ends soon
    after its link.
    """

    _made: "Service | None" = None

    @classmethod
    def of(cls, app_id: str, folder: Path, *, text_ids: bool) -> "Service":
        """Return the process's service; JoinFailed if it cannot start, or is another project's."""
        if cls._made is None:
            cls._made = cls(app_id, folder, text_ids=text_ids)
        if cls._made.key != (app_id, text_ids):
            raise JoinFailed("this process serves another Agora project; it must be replaced")
        return cls._made

    def __init__(self, app_id: str, folder: Path, *, text_ids: bool) -> None:
        self.key = app_id, text_ids
        self.sdk = AgoraService()
        self.sdk.initialize(_service_config(app_id, folder, text_ids=text_ids))
        if not self.sdk.inited:  # its return value is about something else
            raise JoinFailed("Agora's SDK did not start", hint="its log is in the state directory")


def _service_config(app_id: str, folder: Path, *, text_ids: bool) -> AgoraServiceConfig:
    return AgoraServiceConfig(
        appid=app_id,
        enable_video=1,  # without it no pictures are sent or received
        channel_profile=ChannelProfileType.CHANNEL_PROFILE_LIVE_BROADCASTING,
        audio_scenario=AudioScenarioType.AUDIO_SCENARIO_DEFAULT,  # not the wrapper's own
        use_string_uid=int(text_ids),
        log_path=str(folder / "agorasdk.log"),
        log_file_size_kb=_LOG_KBYTES,
        data_dir=str(folder),
        config_dir=str(folder),
    )


@dataclass(frozen=True, slots=True)
class Publication:
    """What a link sends."""

    geometry: Geometry
    fps: float
    bitrate_kbit: int
    sound: bool = False


class Channel:
    """One connection to a channel: publishes pictures, plays those of one user.

    Sound only where it is asked for; if the SDK refuses it, that is logged, and pictures go on.
    """

    def __init__(
        self,
        service: Service,
        publication: Publication,
        played_user: str,
        on_event: Callable[[SdkEvent], None],
        on_frame: Callable[[ReceivedFrame], None],
        *,
        on_block: Callable[[ReceivedBlock], None] | None = None,
        plays_out: bool = False,
    ) -> None:
        """Prepare all that is needed before the join; raises LinkError when that is refused.

        With `on_block` the played user's sound is received; `plays_out` lets the SDK play sound,
        without which some versions may deliver none.
        """
        self._geometry = publication.geometry
        self._played_user = played_user
        self._observers = (
            ConnectionObserver(on_event),
            UserObserver(on_event),
            FrameObserver(played_user, on_frame),
        )
        self._sound_observer = SoundObserver(played_user, on_block) if on_block else None
        connection = service.sdk.create_rtc_connection(
            _connection_config(plays_out=plays_out), _publish_config(sound=publication.sound)
        )
        if connection is None or connection.local_user is None:
            raise JoinFailed("Agora's SDK gives no connection")
        self._connection: RTCConnection = connection
        self._configure_encoder(publication)
        self._register_observers()
        self._checked("publish_video", connection.publish_video())
        if publication.sound:
            self._tried("publish_audio", connection.publish_audio())
        self.subscribe()
        self.subscribe_sound()

    def connect(self, token: str, channel: str, user: str) -> None:
        """Begin to join; events report the result. Raises LinkError when the call is refused."""
        self._checked("connect", self._connection.connect(token, channel, user))

    def subscribe(self) -> None:
        """Ask for the pictures of the played user; repeat this while none come."""
        options = VideoSubscriptionOptions(
            type=VideoStreamType.VIDEO_STREAM_HIGH, encodedFrameOnly=False
        )
        returned = self._connection.local_user.subscribe_video(self._played_user, options)
        if returned < 0:
            _log.warning(LogEvent.LINK_SUBSCRIBE_REFUSED, returned=returned)

    def subscribe_sound(self) -> None:
        """Ask for the sound of the played user, where sound is received; repeat if none comes."""
        if self._sound_observer is not None:
            user = self._connection.local_user
            self._tried("subscribe_audio", user.subscribe_audio(self._played_user))

    def request_key_frame(self) -> None:
        """Ask the played user for a key frame."""
        self._connection.send_intra_request(self._played_user)

    def push(self, picture: I420) -> int:
        """Send one picture of the publication's geometry, copied before this returns.

        Returns the SDK's answer, negative if it refused.
        """
        frame = ExternalVideoFrame(
            type=_RAW_DATA,
            format=_I420,
            buffer=picture.reshape(-1),
            stride=self._geometry.width,
            height=self._geometry.height,
            timestamp=_STAMPED_ON_ARRIVAL,
        )
        returned: int = self._connection.push_video_frame(frame)
        return returned

    def push_sound(self, samples: Samples) -> int:
        """Send one block, copied before this returns; the SDK's answer is negative if it refused.

        Push one each 10 ms: the SDK keeps what comes earlier, as a delay that stays.
        """
        # Bytes, as the wrapper counts by len(); writable, as it takes no others.
        pcm = bytearray(samples.data)
        returned: int = self._connection.push_audio_pcm_data(pcm, RATE, _MONO, _STAMPED_ON_ARRIVAL)
        return returned

    def renew(self, token: str) -> None:
        """Use another token from now on; raises LinkError when it is refused: the old one stays."""
        self._checked("renew_token", self._connection.renew_token(token))

    def mute(self) -> None:
        """Make late callbacks return at once, from now on."""
        for observer in (*self._observers, self._sound_observer):
            if observer is not None:
                observer.is_closed = True

    def disconnect(self) -> None:
        """Leave the channel; `Disconnected` follows."""
        self._connection.disconnect()

    def release(self) -> None:
        """Free the connection. May hang; nothing may be called afterwards."""
        self._connection.release()

    def _configure_encoder(self, publication: Publication) -> None:
        size, kbit = publication.geometry, publication.bitrate_kbit
        # A new object for each call: the wrapper multiplies the bitrates in it.
        settings = VideoEncoderConfiguration(
            dimensions=VideoDimensions(width=size.width, height=size.height),
            frame_rate=round(publication.fps),
            codec_type=VideoCodecType.VIDEO_CODEC_H264,
            bitrate=kbit,
            min_bitrate=kbit,
        )
        answer = self._connection.set_video_encoder_configuration(settings)
        self._checked("set_video_encoder_configuration", answer)

    def _register_observers(self) -> None:
        """Register each observer once, as a second time breaks the wrapper; keep what it made."""
        connection, (of_connection, of_user, of_frames) = self._connection, self._observers
        self._checked("register_observer", connection.register_observer(of_connection))
        self._checked(
            "register_local_user_observer", connection.register_local_user_observer(of_user)
        )
        self._checked(
            "register_video_frame_observer", connection.register_video_frame_observer(of_frames)
        )
        user = connection.local_user
        _kept.extend((connection, self._observers, connection.con_observer_handle))
        _kept.extend((user.user_observer_inner, user.video_frame_observer))
        if self._sound_observer is not None:
            self._register_sound_observer(self._sound_observer)

    def _register_sound_observer(self, observer: SoundObserver) -> None:
        """Register it once, with the form of its blocks set before, and without voice detection."""
        connection, user = self._connection, self._connection.local_user
        set_form = user.set_playback_audio_frame_before_mixing_parameters
        self._tried("set_playback_audio_frame_before_mixing_parameters", set_form(_MONO, RATE))
        self._tried(
            "register_audio_frame_observer",
            connection.register_audio_frame_observer(observer, 0, None),
        )
        _kept.extend((observer, user.audio_frame_observer))

    @staticmethod
    def _tried(call: str, returned: int) -> None:
        if returned < 0:
            _log.warning(LogEvent.LINK_SOUND_REFUSED, call=call, returned=returned)

    @staticmethod
    def _checked(call: str, returned: int) -> None:
        if returned < 0:
            raise error_codes.error_of_call(call, returned)


def _connection_config(*, plays_out: bool) -> RTCConnConfig:
    return RTCConnConfig(
        client_role_type=ClientRoleType.CLIENT_ROLE_BROADCASTER,
        channel_profile=ChannelProfileType.CHANNEL_PROFILE_LIVE_BROADCASTING,
        auto_subscribe_audio=0,
        auto_subscribe_video=0,
        enable_audio_recording_or_playout=int(plays_out),
    )


def _publish_config(*, sound: bool) -> RtcConnectionPublishConfig:
    config = RtcConnectionPublishConfig(
        audio_scenario=AudioScenarioType.AUDIO_SCENARIO_DEFAULT,
        is_publish_audio=sound,
        is_publish_video=True,
        video_publish_type=VideoPublishType.VIDEO_PUBLISH_TYPE_YUV,
    )
    if sound:
        config.audio_profile = AudioProfileType.AUDIO_PROFILE_MUSIC_STANDARD
        config.audio_publish_type = AudioPublishType.AUDIO_PUBLISH_TYPE_PCM
    return config
