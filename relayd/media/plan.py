"""Plans the filters that fit a picture to the relay's size, from what is known about it."""

from dataclasses import dataclass
from typing import Final

from relayd.media.colour import Colours
from relayd.media.frames import FitMode, Geometry, plan_fit
from relayd.media.graph import Filter, Layout
from relayd.media.orientation import Orientation

_DECLARED: Final = {"bt709": "bt709", "smpte240m": "smpte240m", "bt2020": "bt2020ncl"}
"""The matrices other than BT.601, as the filter `colorspace` calls them."""
_TO_BT601: Final = (
    "space=smpte170m:irange=tv:range=tv:format=yuv420p"
    ":iprimaries=bt709:primaries=bt709:itrc=bt709:trc=bt709"
)
"""Changes only the matrix: with equal primaries and curve on both sides they stay unchanged."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that the filters depend on."""

    layout: Layout
    has_alpha: bool
    colours: Colours
    full_range: bool
    sample_aspect: float
    """A pixel's width over its height; 0: unknown."""
    orientation: Orientation


def plan_filters(
    shape: Shape, target: Geometry, mode: FitMode, cube_file: str = ""
) -> list[Filter]:
    """Return the filters, in order.

    `cube_file` is the path of the table for colours that need one. What takes time comes when the
    picture is small: colours and rotation last. So the fit is planned before the rotation.
    """
    if shape.orientation.sideways:
        target = Geometry(target.height, target.width)
    width, height = shape.layout.width, shape.layout.height
    plan = plan_fit(width, height, shape.sample_aspect, target, mode)
    filters: list[Filter] = []
    if plan.crop[2:] != (width, height):
        left, top, cropped_width, cropped_height = plan.crop
        filters.append(("crop", f"{cropped_width}:{cropped_height}:{left}:{top}:exact=1"))
    if shape.has_alpha:
        # Over black, and before scaling: hidden colours must not bleed into the edges.
        filters.append(("premultiply", "inplace=1"))
    filters += _scale(plan.scaled, shape.colours, cube_file)
    if plan.scaled != (target.width, target.height):
        x, y = plan.offset
        filters.append(("pad", f"{target.width}:{target.height}:{x}:{y}:color=black"))
    return [*filters, *shape.orientation.filters]


def _scale(size: tuple[int, int], colours: Colours, cube_file: str) -> list[Filter]:
    scaled = f"{size[0]}:{size[1]}:flags=bilinear:in_color_matrix={colours.matrix}"
    if colours.needs_table:
        # In floats, which FFmpeg interpolates twice as fast as 10-bit integers.
        return [
            ("scale", scaled),
            ("format", "gbrpf32le"),
            ("lut3d", {"file": cube_file}),
            ("scale", "flags=bilinear:out_color_matrix=bt601:out_range=tv"),
            ("format", "yuv420p"),
        ]
    filters: list[Filter] = [
        ("scale", f"{scaled}:out_range=tv:out_color_matrix={colours.matrix}"),
        ("format", "yuv420p"),
    ]
    if declared := _DECLARED.get(colours.matrix):
        # This filter costs 0.12 ms at 640x480, where swscale takes 1.5 ms.
        filters.append(("colorspace", f"ispace={declared}:{_TO_BT601}"))
    return filters
