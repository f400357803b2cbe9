"""A mute outlives the process that was muted."""

from pathlib import Path

import structlog

from relayd.relay.kept_mute import KeptMute


def test_a_mute_is_known_to_the_next_run_of_that_relay_and_to_no_other(tmp_path: Path) -> None:
    KeptMute(tmp_path / "state", "one").set()
    assert KeptMute(tmp_path / "state", "one").is_set()
    assert not KeptMute(tmp_path / "state", "two").is_set()


def test_its_end_is_known_as_well(tmp_path: Path) -> None:
    mute = KeptMute(tmp_path, "one")
    mute.clear()
    mute.set()
    mute.set()
    mute.clear()
    assert not KeptMute(tmp_path, "one").is_set()


def test_what_cannot_be_read_counts_as_muted(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with structlog.testing.capture_logs() as logs:
        assert KeptMute(tmp_path / "state", "one").is_set()
    assert [line["event"] for line in logs] == ["sound.mute_unknown"]


def test_a_mute_that_cannot_be_kept_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with structlog.testing.capture_logs() as logs:
        KeptMute(tmp_path / "state", "one").set()
        KeptMute(tmp_path / "state", "one").clear()
    assert [line["event"] for line in logs] == ["sound.mute_not_kept", "sound.mute_not_kept"]
