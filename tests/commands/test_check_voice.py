"""What `relayd check` says of the user's own sound."""

import shutil
from pathlib import Path

import pytest

from relayd.commands.check_media import check_source
from relayd.commands.check_voice import check_voice, describe
from relayd.commands.finding import CheckStatus
from relayd.config.loading import load_tree
from relayd.config.settings import Settings, SoundSettings
from relayd.media.sound import SoundFormat
from tests.support.sounding import Sounding, write


def settings_for(clip: Path, **sound: str) -> Settings:
    tree = {"source": {"url": str(clip)}, "sound": sound, "output": []}
    return load_tree(tree | {"face": {"image": "http://service.example/a.png"}})


async def test_the_sources_sound_is_told_with_its_form_and_level(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", Sounding(2.0, rate=44100, layout="stereo"))
    _, heard = await check_source(settings_for(clip), "a")
    assert heard.verdict is CheckStatus.OK
    assert heard.why.startswith("aac, 44100 Hz, 2 channels, -")


async def test_a_source_without_sound_is_told_with_what_to_do(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", Sounding(1.0, with_sound=False))
    _, heard = await check_source(settings_for(clip), "a")
    assert (heard.verdict, heard.why) == (CheckStatus.WARNING, "the source has no sound")


def test_a_silent_microphone_is_a_warning() -> None:
    heard = describe(SoundFormat("pulse", 48000, 1), -100.0)
    assert (heard.verdict, heard.why) == (
        CheckStatus.WARNING,
        "pulse, 48000 Hz, 1 channel: silent!",
    )


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")
def test_a_device_of_its_own_is_listened_to(tmp_path: Path) -> None:
    clip = write(tmp_path / "voice.mkv", Sounding(2.0, codec="pcm_s16le"))
    (heard,) = check_voice(SoundSettings(source=str(clip)))
    assert heard.verdict is CheckStatus.OK
    (failed,) = check_voice(SoundSettings(source="alsa:hw:99"))
    assert failed.verdict is CheckStatus.WARNING
    assert failed.why.startswith("alsa:hw:99: ")
