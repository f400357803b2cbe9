"""Painting the textures of the procedural people: skin, brows, eyes, lips, hair, cloth.

Colours are RGB, 0..255, floats while painting; everything is drawn from the persona's
own random stream, so that the same persona always looks the same.
"""

from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from PIL import Image, ImageDraw

from relayd.emulator.swap import canonical
from relayd.emulator.swap.nets import Floats
from relayd.emulator.swap.raster import softened
from tests.people.anatomy import EYE_OPENING

SIDE = 1024
"""Skin texture side, texels."""

_BROW_ROOTS = ((46, 53, 52, 65, 55), (276, 283, 282, 295, 285))
"""The brow's lower edge, from temple to nose."""
_BROW_TIPS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
"""The brow's upper edge, from temple to nose."""
_UPPER_LID = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
)
_LOWER_LID = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (263, 249, 390, 373, 374, 380, 381, 382, 362),
)
_LID_FOLD = ((247, 30, 29, 27, 28, 56, 190), (467, 260, 259, 257, 258, 286, 414))
_CHEEKS = (50, 280)

Colour = tuple[int, int, int]


@final
@dataclass(frozen=True, slots=True)
class Complexion:
    """The colours of one face."""

    skin: Colour
    blush: Colour = (205, 95, 85)
    blush_strength: float = 0.3
    lips: Colour = (190, 95, 90)
    lip_strength: float = 0.75
    brow: Colour = (60, 42, 30)
    brow_weight: float = 1.0
    """Thickness and density of the brows."""
    iris: Colour = (70, 95, 60)
    lid: Colour = (120, 80, 70)
    """Eye shadow."""
    lid_strength: float = 0.25
    lashes: float = 1.0
    freckles: int = 0
    stubble: float = 0.0
    """0 shaven, 1 a short full beard."""
    beard: Colour = (50, 36, 28)


def paint_skin(look: Complexion, seed: int) -> Floats:
    """The face's colours in the canonical texture, (1024, 1024, 3)."""
    random = np.random.default_rng(seed)
    skin = np.empty((SIDE, SIDE, 3), np.float32)
    skin[:] = look.skin
    skin *= 1 + 0.035 * _noise(random, 24)[..., None] + 0.03 * _noise(random, 90)[..., None]
    skin *= 1 + 0.028 * _noise(random, 420)[..., None]
    _glow(skin, look, random)
    _freckle(skin, look, random)
    _beard(skin, look, random)
    _shadow_lids(skin, look)
    _lips(skin, look, random)
    for side in (0, 1):
        _brow(skin, look, side, random)
        _eye(skin, look, side, random)
    return np.clip(skin, 0, 255)


def paint_hair(colour: Colour, shine: Colour, seed: int) -> Floats:
    """Strands that run down, (512, 512, 4): RGB and how dense they are."""
    random = np.random.default_rng(seed)
    strands = np.zeros((512, 512), np.float32)
    for count, weight in ((60, 0.5), (180, 0.35), (512, 0.3)):
        strands += weight * _streaks(random, count)
    strands = (strands - strands.min()) / np.ptp(strands)
    base, top = np.array(colour, np.float32), np.array(shine, np.float32)
    mixed = base * 0.62 + (top - base * 0.62) * (strands[..., None] ** 1.6)
    return np.dstack([mixed, strands]).astype(np.float32)


def paint_cloth(colour: Colour, seed: int) -> Floats:
    """Knitted cloth with soft folds, (512, 512, 3)."""
    random = np.random.default_rng(seed)
    folds = softened(random.standard_normal((512, 512)).astype(np.float32), 22.0)
    folds /= float(np.abs(folds).max())
    grain = softened(random.standard_normal((512, 512)).astype(np.float32), 0.8)
    cloth = np.array(colour, np.float32) * (1 + 0.22 * folds + 0.05 * grain)[..., None]
    return np.clip(cloth, 0, 255).astype(np.float32)


@cache
def eye_mask() -> Floats:
    """1 where the texture is eyeball, which shines and casts no skin shade, (1024, 1024)."""
    mask = _filled(canonical.RIGHT_EYE) + _filled(canonical.LEFT_EYE)
    return softened(np.clip(mask, 0, 1), 1.2)


@cache
def lip_mask() -> Floats:
    """1 on the lips, which are glossier than skin, (1024, 1024)."""
    return softened(_filled(canonical.OUTER_LIPS), 5.0)


def _glow(skin: Floats, look: Complexion, random: np.random.Generator) -> None:
    red = np.zeros((SIDE, SIDE), np.float32)
    for cheek in _CHEEKS:
        red += _spot(cheek, 0.12, 0.085)
    red += 0.55 * _spot(4, 0.04, 0.035) + 0.3 * _spot(152, 0.06, 0.035)
    red += 0.25 * _spot(10, 0.25, 0.06)
    red *= 1 + 0.35 * _noise(random, 60)
    _mix(skin, look.blush, np.clip(red, 0, 1) * look.blush_strength)
    for side in (0, 1):
        below = canonical.UV[list(_LOWER_LID[side])].mean(0) + np.array([0, 0.035])
        _mix(skin, _darker(look.skin, 0.72), 0.32 * _blob(below, 0.055, 0.018))


def _freckle(skin: Floats, look: Complexion, random: np.random.Generator) -> None:
    dots = np.zeros((SIDE, SIDE), np.float32)
    centre = canonical.UV[[50, 280, 6]]
    for _ in range(look.freckles):
        place = centre[random.integers(3)] + random.normal(0, (0.075, 0.045))
        x, y = (np.clip(place, 0.02, 0.97) * SIDE).astype(int)
        size = random.uniform(1.0, 2.3)
        reach = 7
        rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
        dot = np.exp(-(rows**2 + columns**2) / (2 * size**2)) * random.uniform(0.15, 0.5)
        if reach <= x < SIDE - reach and reach <= y < SIDE - reach:
            patch = dots[y - reach : y + reach + 1, x - reach : x + reach + 1]
            np.maximum(patch, dot, out=patch)
    _mix(skin, _darker(look.skin, 0.62), dots * 0.75)


def _beard(skin: Floats, look: Complexion, random: np.random.Generator) -> None:
    if not look.stubble:
        return
    jaw = canonical.UV[[234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379,
                        365, 397, 288, 361, 323, 454, 366, 401, 435, 367, 364, 432, 287, 410, 322,
                        393, 164, 167, 92, 186, 57, 212, 135, 138, 215, 177, 137]]  # fmt: skip
    area = softened(_polygon(jaw), 16.0)
    area *= 1 - softened(_filled(canonical.OUTER_LIPS), 4.0)
    hairs = np.clip(1.1 * _noise(random, 1000) + 0.5 * _noise(random, 500) + 0.6, 0, 1)
    patchy = np.clip(0.85 + 0.3 * _noise(random, 40), 0, 1)
    _mix(skin, look.beard, area * patchy * (0.42 + 0.45 * hairs) * look.stubble)


def _shadow_lids(skin: Floats, look: Complexion) -> None:
    for side in (0, 1):
        lid = canonical.UV[list(_UPPER_LID[side])]
        fold = canonical.UV[list(_LID_FOLD[side])][::-1] - np.array([0, 0.006])
        area = softened(_polygon(np.concatenate([lid, fold])), 6.0)
        _mix(skin, look.lid, area * look.lid_strength)
        crease = softened(_line(fold, 4), 2.5)
        _mix(skin, _darker(look.skin, 0.5), crease * 0.55)


def _lips(skin: Floats, look: Complexion, random: np.random.Generator) -> None:
    area = softened(_filled(canonical.OUTER_LIPS), 3.5)
    _mix(skin, look.lips, area * look.lip_strength)
    ridges = _streaks(random, 300, SIDE)
    skin *= 1 + (area * 0.05 * ridges)[..., None]
    lower = softened(
        _line(canonical.UV[[91, 181, 84, 17, 314, 405, 321]] - np.array([0, 0.013]), 10), 6.0
    )
    _mix(skin, _lighter(look.lips, 1.3), lower * 0.35)
    inner = canonical.UV[list(canonical.INNER_LIPS[:11])]
    _mix(skin, _darker(look.lips, 0.35), softened(_line(inner, 5), 2.0) * 0.8)


def _brow(skin: Floats, look: Complexion, side: int, random: np.random.Generator) -> None:
    roots = canonical.UV[list(_BROW_ROOTS[side])]
    tips = canonical.UV[list(_BROW_TIPS[side])]
    middle = (roots + tips) / 2
    half = (tips - roots) / 2 * 0.72 * look.brow_weight
    strokes = Image.new("L", (2 * SIDE, 2 * SIDE), 0)
    draw = ImageDraw.Draw(strokes)
    for _ in range(int(1100 * look.brow_weight)):
        along = random.beta(1.15, 1.0) * 3.999
        part = int(along)
        start = middle[part] + (middle[part + 1] - middle[part]) * (along - part)
        wide = half[part] + (half[part + 1] - half[part]) * (along - part)
        thin = min(1.0, along / 1.3 + 0.25)  # the tail by the temple runs to a point
        root = start + wide * random.uniform(-1, 0.75) * thin
        outward = middle[part] - middle[part + 1]
        outward = outward / np.linalg.norm(outward)
        lean = random.normal(0.72, 0.12) if along < 3 else random.normal(0.25, 0.2)
        tip = root + (outward * lean + np.array([0, -0.45])) * random.uniform(0.014, 0.024)
        ends = [tuple(float(n) for n in each * 2 * SIDE) for each in (root, tip)]
        draw.line(ends, fill=int(random.uniform(60, 190)), width=int(random.integers(2, 4)))
    mask = _array(strokes.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    soft = softened(
        _polygon(np.concatenate([middle - half * 0.7, (middle + half * 0.7)[::-1]])), 8.0
    )
    _mix(skin, look.brow, soft * 0.7)
    _mix(skin, look.brow, softened(mask, 1.1) * 0.85)


def _eye(skin: Floats, look: Complexion, side: int, random: np.random.Generator) -> None:
    line = canonical.RIGHT_EYE if side == 0 else canonical.LEFT_EYE
    mask = softened(_filled(line), 1.0)
    ball = np.empty_like(skin)
    ball[:] = (226, 218, 212)
    corners = canonical.UV[list(line)]
    middle, wide = corners.mean(0), float(np.ptp(corners[:, 0]))
    world = canonical.XYZ[list(line)]
    stretch = float(np.ptp(corners[:, 1]) / (np.ptp(world[:, 1]) + EYE_OPENING)) / (
        wide / float(np.ptp(world[:, 0]))
    )
    radius = wide * 0.225
    rows, columns = np.indices((SIDE, SIDE), dtype=np.float32)
    x = (columns / SIDE - middle[0]) / radius
    y = (rows / SIDE - middle[1] + 0.0035) / (radius * stretch)
    away = np.hypot(x, y)
    _mix(ball, (190, 130, 120), np.clip((np.abs(x) - 1.35) / 1.2, 0, 1) * 0.45)
    rays = np.interp(
        np.arctan2(y, x),
        np.linspace(-np.pi, np.pi, 96),
        random.uniform(0.72, 1.28, 96),
        period=2 * np.pi,
    ).astype(np.float32)
    iris = (
        np.array(look.iris, np.float32)
        * (rays * (0.75 + 0.55 * np.clip(1 - away, 0, 1) + 0.35 * np.clip(y, 0, 1)))[..., None]
    )
    _mix(ball, iris, np.clip((1.0 - away) * 9, 0, 1))
    _mix(ball, (22, 18, 18), np.clip(1 - np.abs(away - 0.97) * 7, 0, 1) * 0.75)
    _mix(ball, (8, 7, 8), np.clip((0.43 - away) * 12, 0, 1))
    lid = canonical.UV[list(_UPPER_LID[side])]
    _mix(ball, (60, 42, 40), softened(_line(lid, 16), 6.0) * 0.75)
    _mix(ball, (255, 252, 248), np.clip(1.4 - np.hypot(x + 0.34, y + 0.36) * 5.2, 0, 1) * 0.95)
    _mix(ball, (255, 252, 248), np.clip(1.2 - np.hypot(x - 0.36, y - 0.40) * 9, 0, 1) * 0.4)
    _mix(skin, ball, mask)
    rim = softened(_line(canonical.UV[list(_LOWER_LID[side])] + np.array([0, 0.001]), 3), 1.5)
    _mix(skin, _darker(look.skin, 0.5), rim * 0.7)
    _lashes(skin, look, side, random)


def _lashes(skin: Floats, look: Complexion, side: int, random: np.random.Generator) -> None:
    lid = canonical.UV[list(_UPPER_LID[side])]
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE), 0)
    draw = ImageDraw.Draw(canvas)
    draw.line(
        [tuple((p * 2 * SIDE).tolist()) for p in lid], fill=235, width=int(5 + 5 * look.lashes)
    )
    outward = np.sign(lid[0, 0] - lid[-1, 0])
    for _ in range(int(90 * look.lashes)):
        along = random.uniform(0, 7.99)
        part = int(along)
        root = lid[part] + (lid[part + 1] - lid[part]) * (along - part)
        lean = outward * (1 - along / 6)
        length = (0.003 + 0.0075 * (1 - along / 9)) * random.uniform(0.7, 1.1) * look.lashes
        tip = root + np.array([lean * 0.8, -0.75]) * length
        ends = [tuple(float(n) for n in each * 2 * SIDE) for each in (root, tip)]
        draw.line(ends, fill=150, width=2)
    mask = _array(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    _mix(skin, (28, 20, 18), softened(mask, 1.0) * 0.88)


def _mix(onto: Floats, colour: Floats | Colour, amount: Floats) -> None:
    onto += (np.asarray(colour, np.float32) - onto) * amount[..., None]


def _darker(colour: Colour, share: float) -> Colour:
    return (int(colour[0] * share), int(colour[1] * share * 0.9), int(colour[2] * share * 0.88))


def _lighter(colour: Colour, share: float) -> Colour:
    return (
        min(255, int(colour[0] * share)),
        min(255, int(colour[1] * share)),
        min(255, int(colour[2] * share)),
    )


def _noise(random: np.random.Generator, cells: int) -> Floats:
    """Smooth noise about -1..1 with so many cells across, (1024, 1024)."""
    small = random.standard_normal((cells, cells)).astype(np.float32) * 0.5
    picture = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)


def _streaks(random: np.random.Generator, count: int, side: int = 512) -> Floats:
    """Noise drawn out downwards, -1..1, (side, side), without a seam left and right."""
    small = random.standard_normal((6, count)).astype(np.float32) * 0.5
    wide = np.concatenate([small, small[:, :1]], 1)
    picture = Image.fromarray(wide).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32)


def _spot(vertex: int, wide: float, high: float) -> Floats:
    return _blob(canonical.UV[vertex], wide, high)


def _blob(centre: Floats, wide: float, high: float) -> Floats:
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    across = np.exp(-(((line - centre[0]) / wide) ** 2))
    down = np.exp(-(((line - centre[1]) / high) ** 2))
    blob: Floats = np.outer(down, across).astype(np.float32)
    return blob


def _filled(vertices: tuple[int, ...]) -> Floats:
    return _polygon(canonical.UV[list(vertices)])


def _polygon(places: Floats) -> Floats:
    picture = Image.new("L", (2 * SIDE, 2 * SIDE), 0)
    ImageDraw.Draw(picture).polygon([tuple(p) for p in (places * 2 * SIDE).tolist()], fill=255)
    return _array(picture.resize((SIDE, SIDE), Image.Resampling.BOX))


def _line(places: Floats, width: int) -> Floats:
    picture = Image.new("L", (SIDE, SIDE), 0)
    points = [tuple(p) for p in (places * SIDE).tolist()]
    ImageDraw.Draw(picture).line(points, fill=255, width=width, joint="curve")
    return _array(picture)


def _array(picture: Image.Image) -> Floats:
    return np.asarray(picture, np.float32) / np.float32(255)
