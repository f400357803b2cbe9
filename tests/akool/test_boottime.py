import time
from pathlib import Path

from relayd.akool.boottime import Moment, boottime, read_boot_id


def test_the_machines_sleep_counts() -> None:
    assert boottime() >= time.monotonic() - 0.1


def test_a_boot_has_an_id_or_none_if_the_kernel_gives_none(tmp_path: Path) -> None:
    assert read_boot_id() == read_boot_id() != ""
    assert read_boot_id(tmp_path / "none") == ""


def test_within_a_boot_the_boot_clock_counts_else_the_wall_clock_never_backwards() -> None:
    opened = Moment(1000.0, 50.0, "a")
    assert Moment(90_000.0, 67.0, "a").seconds_since(opened) == 17
    assert Moment(0.0, 67.0, "a").seconds_since(opened) == 17
    assert Moment(1100.0, 67.0, "b").seconds_since(opened) == 100
    assert Moment(900.0, 67.0, "b").seconds_since(opened) == 0
    assert Moment(1100.0, 40.0, "a").seconds_since(opened) == 100, "no clock runs backwards"
    assert Moment(1100.0, 67.0, "").seconds_since(Moment(1000.0)) == 100
