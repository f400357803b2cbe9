import hypothesis.strategies as st
import pytest
from hypothesis import given

from relayd.media.frames import FitMode, Geometry, plan_fit

even = st.integers(1, 1920).map(lambda half: half * 2)
geometries = st.builds(Geometry, even, even)
sizes = st.integers(1, 8192)
aspects = st.one_of(st.just(0.0), st.floats(0.1, 10.0))
modes: st.SearchStrategy[FitMode] = st.sampled_from(["crop", "pad", "stretch"])


@given(sizes, sizes, aspects, geometries, modes)
def test_a_plan_stays_within_input_and_target(
    width: int, height: int, aspect: float, target: Geometry, mode: FitMode
) -> None:
    plan = plan_fit(width, height, aspect, target, mode)
    left, top, cut_width, cut_height = plan.crop
    assert left >= 0
    assert top >= 0
    assert cut_width >= 1
    assert cut_height >= 1
    assert left + cut_width <= width
    assert top + cut_height <= height
    assert 2 <= plan.scaled[0] <= target.width
    assert 2 <= plan.scaled[1] <= target.height
    assert 0 <= plan.offset[0] <= target.width - plan.scaled[0]
    assert 0 <= plan.offset[1] <= target.height - plan.scaled[1]


@given(sizes, sizes, aspects, geometries, modes)
def test_sizes_and_offsets_are_even_for_i420(
    width: int, height: int, aspect: float, target: Geometry, mode: FitMode
) -> None:
    plan = plan_fit(width, height, aspect, target, mode)
    assert all(value % 2 == 0 for value in (*plan.scaled, *plan.offset))


@given(sizes, sizes, aspects, geometries)
def test_crop_fills_the_target_and_keeps_one_side_whole(
    width: int, height: int, aspect: float, target: Geometry
) -> None:
    plan = plan_fit(width, height, aspect, target, "crop")
    assert plan.scaled == (target.width, target.height)
    assert plan.offset == (0, 0)
    assert plan.crop[2] == width or plan.crop[3] == height


@given(st.integers(64, 4096), st.integers(64, 4096), st.floats(0.5, 2.0))
def test_crop_keeps_the_shown_aspect(width: int, height: int, aspect: float) -> None:
    target = Geometry(640, 480)
    _, _, cut_width, cut_height = plan_fit(width, height, aspect, target, "crop").crop
    # Half a pixel of rounding in the shorter side.
    assert cut_width * aspect / cut_height == pytest.approx(
        4 / 3, rel=1 / min(cut_width, cut_height)
    )


@given(st.integers(64, 4096), st.integers(64, 4096), st.floats(0.5, 2.0))
def test_pad_keeps_the_shown_aspect_and_the_whole_picture(
    width: int, height: int, aspect: float
) -> None:
    plan = plan_fit(width, height, aspect, Geometry(640, 480), "pad")
    assert plan.crop == (0, 0, width, height)
    shown, wanted = plan.scaled[0] / plan.scaled[1], width * aspect / height
    assert shown == pytest.approx(wanted, rel=2 / min(plan.scaled))
    assert plan.scaled[0] == 640 or plan.scaled[1] == 480


@given(sizes, sizes, aspects, geometries)
def test_pad_is_centred(width: int, height: int, aspect: float, target: Geometry) -> None:
    plan = plan_fit(width, height, aspect, target, "pad")
    for offset, scaled, whole in zip(
        plan.offset, plan.scaled, (target.width, target.height), strict=True
    ):
        assert abs((whole - scaled) / 2 - offset) <= 1


@given(sizes, sizes, aspects, geometries)
def test_stretch_uses_the_whole_picture_and_fills_the_target(
    width: int, height: int, aspect: float, target: Geometry
) -> None:
    plan = plan_fit(width, height, aspect, target, "stretch")
    assert plan.crop == (0, 0, width, height)
    assert plan.scaled == (target.width, target.height)
    assert plan.offset == (0, 0)


@pytest.mark.parametrize("size", [(0, 2), (2, 0), (-2, 2), (3, 2), (2, 3)])
def test_a_geometry_that_i420_does_not_support_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even"):
        Geometry(*size)
