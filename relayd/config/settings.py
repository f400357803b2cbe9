"""The settings of a relay: every key with its type, bounds and default.

`relayd.config.loading` reads them; `config/relayd.toml` explains them.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from relayd.config.addresses import check_port, check_web_url, is_loopback, parse_address
from relayd.errors import OutputError
from relayd.media.frames import FitMode, Geometry, Rotation
from relayd.media.orientation import Orientation, by_hand
from relayd.media.streams import StreamWish
from relayd.urls.quoting import quoted
from relayd.urls.safe import MediaUrl
from relayd.urls.targets import format_of, is_push, require_address, require_audio
from relayd.urls.templates import check_template

ENV_PREFIX = "RELAYD_"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")
"""Needs no escaping in a URL, header or cookie, and is long enough not to be guessed."""
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?(:\d{1,5})?")
_LAST_STREAM = 999
"""FFmpeg opens at most 1000 streams of a source."""
_LANDMARKS = re.compile(r"\d+(\.\d+)?,\d+(\.\d+)?(:\d+(\.\d+)?,\d+(\.\d+)?){3,}")


def _is_given(url: MediaUrl) -> MediaUrl:
    if not url:
        raise ValueError("give a URL or a path")
    return url


def _is_no_switch(value: object) -> object:
    """Refuse a boolean in place of a number: true would be read as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic needs a ValueError
    return value


def _read_stream(value: object) -> object:
    """Accept "best" or a number from 0, also as text (from the environment)."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if value == "best" or (type(value) is int and 0 <= value <= _LAST_STREAM):
        return value
    raise ValueError('must be "best", or the number of a video stream, the first being 0')


def _read_rotation(value: object) -> object:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if type(value) is int and value in get_args(Rotation):
        return value
    raise ValueError("must be 0, 90, 180 or 270, in degrees clockwise")


_NUMBER = BeforeValidator(_is_no_switch)
GivenUrl = Annotated[MediaUrl, AfterValidator(_is_given)]
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600, allow_inf_nan=False), _NUMBER]
Minutes = Annotated[float, Field(ge=0, le=7 * 24 * 60, allow_inf_nan=False), _NUMBER]
EvenPixels = Annotated[int, Field(ge=64, le=4096, multiple_of=2), _NUMBER]


class Section(BaseModel):
    """One table of the file; an unknown key is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _can_be_a_path(cls, value: object) -> object:
        """Refuse NUL characters, and secrets that are not UTF-8."""
        if isinstance(value, SecretStr):
            try:
                value.get_secret_value().encode()
            except UnicodeEncodeError:
                raise ValueError("has bytes that are not UTF-8 text; copy it again") from None
        text = value.reveal() if isinstance(value, MediaUrl) else value
        if isinstance(text, str) and "\0" in text:
            raise ValueError("must not hold a NUL character")
        return value


class SourceSettings(Section):
    """Where the picture comes from."""

    url: GivenUrl = MediaUrl("/dev/video0")
    format: str = ""
    stream: Annotated[StreamWish, BeforeValidator(_read_stream)] = "best"
    options: dict[str, str] = {}
    kind: Literal["auto", "live", "file", "image", "camera"] = "auto"
    loop: bool = True
    refresh: Annotated[float, Field(ge=0.05, le=3600, allow_inf_nan=False), _NUMBER] = 1.0
    open_timeout: Annotated[float, Field(ge=0.5, le=600, allow_inf_nan=False), _NUMBER] = 10.0
    first_frame_timeout: Annotated[float, Field(ge=0.5, le=600, allow_inf_nan=False), _NUMBER] = (
        10.0
    )
    stall_timeout: Annotated[float, Field(ge=0.2, le=3600, allow_inf_nan=False), _NUMBER] = 2.0

    @field_validator("kind")
    @classmethod
    def _is_possible(cls, value: str, info: ValidationInfo) -> str:
        # Fields are validated in their order, so `url` is known here unless it is faulty.
        url = info.data.get("url")
        if value == "camera" and url is not None and url.has_host:
            raise ValueError(
                "is a capture device of this machine, such as /dev/video0; for a camera on the"
                ' network give "live", or leave it "auto"'
            )
        return value

    @field_validator("options", mode="before")
    @classmethod
    def _options_as_text(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key): _ffmpeg_text(item) for key, item in value.items()}
        return value


class VideoSettings(Section):
    """What is sent and shown."""

    width: EvenPixels = 640
    height: EvenPixels = 480
    fps: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False), _NUMBER] = 20.0
    bitrate: Annotated[int, Field(ge=50, le=50_000), _NUMBER] = 5000
    fit: FitMode = "crop"
    rotate: Annotated[Rotation, BeforeValidator(_read_rotation)] = 0
    mirror: bool = False

    @property
    def geometry(self) -> Geometry:
        """Width and height in pixels."""
        return Geometry(self.width, self.height)

    @property
    def turn(self) -> Orientation:
        """How the upright picture is rotated and mirrored."""
        return by_hand(self.rotate, mirror=self.mirror)


class FaceSettings(Section):
    """The face to swap in."""

    image: MediaUrl = MediaUrl("")
    landmarks: str = ""

    @field_validator("image")
    @classmethod
    def _fetchable(cls, value: MediaUrl) -> MediaUrl:
        if value:
            check_web_url(value, "the service fetches the image itself: give a public http(s) URL")
        return value

    @field_validator("landmarks")
    @classmethod
    def _are_points(cls, value: str) -> str:
        if value and not _LANDMARKS.fullmatch(value):
            raise ValueError('give points as "x,y:x,y:x,y:x,y"; `relayd faces detect` prints them')
        return value


class AkoolSettings(Section):
    """The face-swap service and the account."""

    base_url: MediaUrl = MediaUrl("https://openapi.akool.com")
    api_key: SecretStr = SecretStr("")
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    session_max: Seconds = 2700.0
    daily_limit: Minutes = 0.0

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: MediaUrl) -> MediaUrl:
        fix = "give an http(s) URL like https://openapi.akool.com"
        check_web_url(value, fix)
        if set("?#") & set(value.reveal()):
            raise ValueError(f"calls are appended to it, so it can have no ? and no #; {fix}")
        return value


class RtcSettings(Section):
    """The real-time transport."""

    kind: Literal["agora", "webrtc"] = "agora"
    engine: Literal["auto", "libwebrtc", "aiortc"] = "aiortc"
    app_id: str = ""
    publish_url: MediaUrl = MediaUrl("http://127.0.0.1:8700/rtc/{channel_id}/{front_user_id}/whip")
    play_url: MediaUrl = MediaUrl("http://127.0.0.1:8700/rtc/{channel_id}/{algorithm_user_id}/whep")
    first_frame_timeout: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False), _NUMBER] = 20.0
    stall_timeout: Annotated[float, Field(ge=0.2, le=600, allow_inf_nan=False), _NUMBER] = 3.0

    @field_validator("publish_url", "play_url")
    @classmethod
    def _is_template(cls, value: MediaUrl) -> MediaUrl:
        check_template(value.reveal())
        return value


class PrivacySettings(Section):
    """What outputs show without a swapped picture."""

    fallback: Literal["standby", "hold", "raw"] = "standby"
    standby_image: str = ""
    standby_text: Literal["neutral", "details"] = "neutral"


class OnDemandSettings(Section):
    """When a session is open."""

    mode: Literal["auto", "always", "never"] = "auto"
    grace: Seconds = 30.0


class CameraSettings(Section):
    """A virtual webcam."""

    kind: Literal["camera"]
    device: str = Field("auto", min_length=1)


class StreamSettings(Section):
    """A stream to push, or a file to write."""

    kind: Literal["stream"]
    url: GivenUrl
    audio: Literal["aac", "opus"] = "aac"

    @field_validator("url")
    @classmethod
    def _is_target(cls, value: MediaUrl) -> MediaUrl:
        target = value.reveal()
        try:
            format_of(target)
        except OutputError as fault:
            raise ValueError(f"{fault.message}; {fault.hint}") from fault
        if is_push(target):
            check_port(target)
            try:
                require_address(target)
            except OutputError as fault:
                raise ValueError(f"{fault.message}; {fault.hint}") from fault
        return value

    @field_validator("audio")
    @classmethod
    def _fits_target(cls, value: str, info: ValidationInfo) -> str:
        # Fields are validated in their order, so `url` is known here, unless it is invalid.
        if "url" in info.data:
            try:
                require_audio(info.data["url"].reveal(), value)
            except OutputError as fault:
                raise ValueError(f"{fault.message}; {fault.hint}") from fault
        return value


class MicrophoneSettings(Section):
    """A virtual microphone."""

    kind: Literal["microphone"]
    device: str = "auto"
    name: Annotated[str, Field(min_length=1, max_length=64)] = "relayd microphone"

    @field_validator("device")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value in {"auto", "pulse"} or value.removeprefix("alsa:") not in {"", value}:
            return value
        raise ValueError('give "auto", "pulse", or an ALSA device: "alsa:hw:CARD=relayd,DEV=0"')

    @field_validator("name")
    @classmethod
    def _can_be_listed(cls, value: str) -> str:
        if value.isprintable() and re.search(r"[A-Za-z0-9]", value):
            return value
        raise ValueError("programs list it: give letters or digits, and no control characters")


OutputSettings = Annotated[
    CameraSettings | StreamSettings | MicrophoneSettings, Field(discriminator="kind")
]


class SoundSettings(Section):
    """The sound beside the picture."""

    source: Annotated[str, Field(min_length=1)] = "auto"
    publish: bool = False
    play: Literal["own", "returned"] = "own"
    offset: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False), _NUMBER] = 0.0
    delay: Annotated[float, Field(ge=0, le=2.5, allow_inf_nan=False), _NUMBER] = 0.0
    standby: Literal["keep", "mute"] = "keep"


class ControlSettings(Section):
    """The relay's own page, API and metrics."""

    socket: str = ""
    insecure: bool = False
    http: str = ""
    token: SecretStr = SecretStr("")
    public: tuple[Literal["healthz", "metrics"], ...] = ()
    allowed_hosts: tuple[str, ...] = ()

    @field_validator("http")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        # Fields are validated in their order, so `insecure` is known here.
        if value and not is_loopback(parse_address(value)[0]) and not info.data.get("insecure"):
            raise ValueError(
                "other machines reach this address, and relayd has no TLS; give 127.0.0.1 and"
                " put a reverse proxy with TLS in front, or set control.insecure = true"
            )
        return value

    @field_validator("token")
    @classmethod
    def _is_token(cls, value: SecretStr) -> SecretStr:
        if (text := value.get_secret_value()) and not _TOKEN.fullmatch(text):
            raise ValueError(
                "give 16 to 256 of the characters A-Z a-z 0-9 . _ ~ -, like those that"
                " `openssl rand -hex 16` prints, or nothing for a new one at each start"
            )
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(
                    f'{quoted(name)} is no host name; give names like "relay.example.com"'
                )
        return value

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to serve over TCP; None if it is off."""
        return parse_address(self.http) if self.http else None


class StateSettings(Section):
    """Where the journal is."""

    directory: str = ""


class Settings(Section):
    """All settings of one relay."""

    source: SourceSettings = SourceSettings.model_construct()
    video: VideoSettings = VideoSettings()
    face: FaceSettings = FaceSettings()
    akool: AkoolSettings = AkoolSettings()
    rtc: RtcSettings = RtcSettings()
    privacy: PrivacySettings = PrivacySettings()
    on_demand: OnDemandSettings = OnDemandSettings()
    sound: SoundSettings = SoundSettings()
    output: list[OutputSettings] = [CameraSettings(kind="camera", device="auto")]
    control: ControlSettings = ControlSettings()
    state: StateSettings = StateSettings()

    @field_validator("output")
    @classmethod
    def _microphones_differ(cls, value: list[OutputSettings]) -> list[OutputSettings]:
        names = [
            re.sub(r"[^a-z0-9]+", "", each.name.lower())
            for each in value
            if isinstance(each, MicrophoneSettings) and not each.device.startswith("alsa:")
        ]
        if len(names) > len(set(names)):
            raise ValueError("two microphones need names that differ in letters or digits")
        return value

    @property
    def wants_sound(self) -> bool:
        """Whether sound is read and played: `[sound]` was given, or there is a microphone.

        Otherwise everything is as in a configuration from before there was sound.
        """
        has_microphone = any(isinstance(each, MicrophoneSettings) for each in self.output)
        return has_microphone or "sound" in self.model_fields_set


def _ffmpeg_text(value: object) -> object:
    """Return a number or boolean as text for FFmpeg; other values are left to validation."""
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value
