"""Write the demo's media: `python -m tests.people.make_media`, about three minutes.

person.mp4 is the person before the camera, who speaks; the portraits are faces to put on them.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.stream import AudioStream
from PIL import Image

from relayd.commands.lip_sync import CLIP, LAMP, LAMP_RADIUS
from relayd.emulator.swap.raster import to_i420
from relayd.media.encode import VideoWriter
from relayd.sound.blocks import RATE
from tests.people import speech
from tests.people.people import (
    AT_REST,
    DARIO,
    LOOP,
    MIRA,
    NOOR,
    Persona,
    pose_at,
    render_pose,
)

MEDIA: Final = Path(__file__).parents[2] / "relayd" / "emulator" / "media"

_RATE = 25.0
"""Frames a second."""
_BITRATE = 950
"""Kbit/s: eleven seconds in 1.3 MB."""
_SPEECH_BITRATE = 48
"""Kbit/s: eleven seconds in 66 kB."""
_CLIP_DETAIL = 1.5
_PORTRAIT_SIZE = (512, 640)
_PORTRAIT_ZOOM = 1.2
"""The head fills four fifths of the height."""
_PORTRAIT_DETAIL = 3.0
_LIT, _UNLIT, _RIM = (214, 240, 255), (38, 34, 52), (28, 28, 30)
"""The lamp's colours, BGR."""


def main() -> None:
    """Write all three files again."""
    MEDIA.mkdir(exist_ok=True)
    _write_clip(MIRA, MEDIA / "person.mp4")
    _write_portrait(DARIO, MEDIA / "portrait.png")
    _write_portrait(NOOR, MEDIA / "portrait2.png")


def _write_clip(persona: Persona, path: Path) -> None:
    track = speech.speech()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures.mp4"
        _write_pictures(persona, track, pictures)
        _write_with_sound(pictures, track, path)


def _write_pictures(persona: Persona, track: np.ndarray, path: Path) -> None:
    writer = VideoWriter(str(path), CLIP.width, CLIP.height, fps=_RATE, bitrate_kbit=_BITRATE)
    try:
        for number in range(round(LOOP * _RATE)):
            writer.write(to_i420(_picture(persona, track, number / _RATE)))
    finally:
        writer.close()


def _picture(persona: Persona, track: np.ndarray, t: float) -> np.ndarray:
    pose = pose_at(persona, t)
    pose = replace(pose, expression=replace(pose.expression, mouth=speech.mouth_at(track, t)))
    bgr = render_pose(persona, pose, t, (CLIP.width, CLIP.height), detail=_CLIP_DETAIL)
    _draw_lamp(bgr, _LIT if speech.is_speaking(track, t) else _UNLIT)
    return bgr


def _draw_lamp(bgr: np.ndarray, colour: tuple[int, int, int]) -> None:
    y, x = np.mgrid[: CLIP.height, : CLIP.width]
    away = np.hypot(x - LAMP[0], y - LAMP[1])[..., None]
    for radius, paint in ((LAMP_RADIUS + 5, _RIM), (LAMP_RADIUS, colour)):
        share = np.clip(radius - away, 0, 1)
        bgr[:] = (bgr + (np.array(paint) - bgr) * share).astype(np.uint8)


def _write_with_sound(pictures: Path, track: np.ndarray, path: Path) -> None:
    """Copy the pictures into a file that has the speech too, each beside its part of it."""
    with av.open(str(pictures)) as source, av.open(str(path), "w") as file:
        video = file.add_stream_from_template(source.streams.video[0])
        sound = file.add_stream("aac", rate=RATE)
        assert isinstance(sound, AudioStream)
        sound.layout, sound.bit_rate = "mono", _SPEECH_BITRATE * 1000
        beside_a_picture = track.reshape(round(LOOP * _RATE), -1)
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is None:  # the end
                break
            packet.stream = video
            file.mux(packet)
            file.mux(sound.encode(_frame(beside_a_picture[number], number)))
        file.mux(sound.encode(None))


def _frame(samples: np.ndarray, number: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    frame.sample_rate, frame.pts = RATE, number * len(samples)
    return frame


def _write_portrait(persona: Persona, path: Path) -> None:
    bgr = render_pose(
        persona, AT_REST, 0.0, _PORTRAIT_SIZE, detail=_PORTRAIT_DETAIL, zoom=_PORTRAIT_ZOOM
    )
    Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])).save(path, optimize=True)


if __name__ == "__main__":
    main()
