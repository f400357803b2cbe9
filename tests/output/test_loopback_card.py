"""What a sound card as microphone says where it cannot be opened; tests/vm has a real one."""

import stat
from pathlib import Path

import pytest

from relayd.errors import MicrophoneUnavailable
from relayd.output.loopback_card import DEVICE, LoopbackCard


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc in which the card is there, and nobody records from it."""
    end = tmp_path / "proc" / "asound" / "relayd" / "pcm1c" / "sub0"
    end.mkdir(parents=True)
    (end / "status").write_text("closed\n")
    return tmp_path / "proc"


def refusal(proc: Path) -> MicrophoneUnavailable:
    card = LoopbackCard(DEVICE, lambda *_: None, proc=proc)
    with pytest.raises(MicrophoneUnavailable) as refused:
        card.open()
    return refused.value


def test_without_the_card_it_says_so_and_how_to_get_one(tmp_path: Path) -> None:
    refused = refusal(tmp_path)
    assert "no sound card relayd" in str(refused)
    assert "modprobe snd-aloop" in refused.hint


def test_without_aplay_it_names_the_package(
    proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = refusal(proc)
    assert "aplay not found" in str(refused)
    assert refused.hint == "apt install alsa-utils"


def test_what_aplay_complains_of_is_told(
    proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aplay = tmp_path / "aplay"
    aplay.write_text("#!/bin/sh\necho 'audio open error: Device or resource busy' >&2\nexit 1\n")
    aplay.chmod(aplay.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    refused = refusal(proc)
    assert "Device or resource busy" in str(refused)
    assert "group audio" in refused.hint
