from fractions import Fraction
from pathlib import Path

import av
import pytest

import relayd
from relayd.media import compat


@pytest.mark.parametrize("major", [16, 17, 18])
def test_pyav_up_to_18_gets_an_error_handler_for_titles_that_are_not_utf8(major: int) -> None:
    assert compat.metadata_arguments(major) == {"metadata_errors": "surrogateescape"}


def test_pyav_19_gets_no_argument_that_was_removed() -> None:
    assert compat.metadata_arguments(19) == {}


@pytest.mark.parametrize(("major", "name"), [(16, "container_options"), (17, "container_options"),
                                            (18, "options"), (19, "options")])  # fmt: skip
def test_options_reach_ffmpeg_without_crashing_pyav(major: int, name: str) -> None:
    assert compat.option_arguments({"probesize": "99"}, major) == {name: {"probesize": "99"}}


def test_a_title_that_is_not_utf8_keeps_its_bytes_in_every_version(tmp_path: Path) -> None:
    path = tmp_path / "title.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXXXX"
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    latin = b"\xe4\xf6\xfc\xdf\xe9\xe8"
    path.write_bytes(path.read_bytes().replace(b"XXXXXX", latin))
    with compat.open_input(str(path), format=None, options={}, timeout=(5, 5)) as container:
        assert container.metadata["title"].encode("utf-8", "surrogateescape") == latin


def test_a_rational_that_is_not_set_is_zero_in_every_version() -> None:
    unset = [None, Fraction(0), av.VideoFrame(16, 16, "yuv420p").time_base]
    if hasattr(av, "AVRational"):
        unset += [av.AVRational(0, 1), av.AVRational(0, 0), av.AVRational(1, 0)]
    assert [compat.number(value) for value in unset] == [0.0] * len(unset)


def test_a_rational_that_is_set_is_its_quotient_in_every_version() -> None:
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.time_base = Fraction(3, 2)
    assert compat.number(frame.time_base) == compat.number(Fraction(3, 2)) == 1.5


def test_no_other_module_checks_the_version_of_pyav() -> None:
    package = Path(relayd.__file__).parent
    checking = [path.name for path in package.rglob("*.py") if "av.__version__" in path.read_text()]
    assert checking == ["compat.py"]
