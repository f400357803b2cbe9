"""Procedural people: nobody's face, drawn from the canonical mesh.

They are the demo's default persons and the tests' ground truth: no licence, no rights.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Final, final

import numpy as np

from relayd.emulator.swap.nets import Floats, Image
from relayd.emulator.swap.raster import rasterise, resized, sampled, softened
from tests.people import anatomy, skin
from tests.people.anatomy import Build, Expression, Mesh
from tests.people.skin import Colour, Complexion

LOOP: Final = 11.0
"""Seconds after which a person's motion begins again, without a jump."""

_CAMERA = 62.0
"""Distance of the camera from the head's middle, cm."""
_FACE_SHARE = 0.029
"""Picture heights that one centimetre takes up at the head: a face is half the picture."""
_KEY = np.array([-0.42, 0.48, 0.77], np.float32)
"""Towards the main light: upper left, in front."""
_FILL = np.array([0.75, 0.1, 0.65], np.float32)
_RIM = np.array([0.72, 0.35, -0.6], np.float32)
_KEY_COLOUR = np.array([0.86, 0.80, 0.73], np.float32)
_FILL_COLOUR = np.array([0.13, 0.15, 0.18], np.float32)
_AMBIENT = np.array([0.27, 0.27, 0.29], np.float32)
_RIM_COLOUR = np.array([0.30, 0.30, 0.34], np.float32)
_MOUTH_COLOUR = np.array([52, 18, 18], np.float32)
_TEETH_COLOUR = np.array([228, 220, 208], np.float32)
_WRAP = np.array([0.42, 0.24, 0.18], np.float32)
"""How far light creeps round into the shade, by R, G, B: skin lets red through."""


@final
@dataclass(frozen=True, slots=True)
class Persona:
    """One person that does not exist."""

    name: str
    seed: int
    build: Build
    complexion: Complexion
    hair: Colour
    hair_shine: Colour
    hair_volume: float = 0.7
    """Cm above the skull."""
    hairline: float = 8.4
    """Cm above the middle of the head."""
    parting: float = 0.0
    """Where the hairline is highest, cm to the right."""
    hair_length: float = 0.0
    """Cm below the ears; 0 is short hair."""
    shirt: Colour = (70, 90, 120)
    wall: tuple[Colour, Colour] = ((196, 190, 180), (120, 118, 116))
    """The background's colours, top left and bottom right."""
    lamps: tuple[Colour, ...] = field(default=((255, 214, 150), (150, 190, 235)))


MIRA: Final = Persona(
    name="mira",
    seed=11,
    build=Build(width=0.95, jaw=0.9, nose=0.86, eyes=1.16, lips=1.02, neck=4.0, shoulders=16.5),
    complexion=Complexion(
        skin=(236, 190, 164),
        blush_strength=0.22,
        lips=(192, 84, 86),
        lip_strength=0.78,
        brow=(94, 58, 36),
        brow_weight=0.8,
        iris=(84, 116, 92),
        lid=(140, 86, 92),
        lid_strength=0.42,
        lashes=1.35,
        freckles=120,
    ),
    hair=(116, 54, 26),
    hair_shine=(222, 128, 70),
    hair_volume=1.9,
    hairline=7.9,
    parting=-2.4,
    hair_length=13.0,
    shirt=(38, 92, 96),
    wall=((214, 204, 190), (150, 134, 120)),
)

DARIO: Final = Persona(
    name="dario",
    seed=23,
    build=Build(
        width=1.03,
        jaw=1.1,
        chin=0.5,
        nose=1.14,
        eyes=0.98,
        lips=0.72,
        brow=0.3,
        neck=5.2,
        shoulders=21,
    ),
    complexion=Complexion(
        skin=(198, 146, 112),
        blush_strength=0.18,
        lips=(158, 88, 78),
        lip_strength=0.6,
        brow=(28, 20, 16),
        brow_weight=1.45,
        iris=(88, 54, 30),
        lid_strength=0.16,
        lashes=0.65,
        stubble=0.85,
        beard=(36, 26, 22),
    ),
    hair=(30, 22, 18),
    hair_shine=(98, 76, 60),
    hair_volume=1.7,
    hairline=8.0,
    parting=1.8,
    shirt=(70, 76, 92),
    wall=((150, 160, 172), (84, 92, 104)),
    lamps=((255, 190, 120), (255, 232, 190)),
)

NOOR: Final = Persona(
    name="noor",
    seed=37,
    build=Build(width=0.99, jaw=0.95, nose=1.04, eyes=1.1, lips=1.2, neck=4.2, shoulders=17),
    complexion=Complexion(
        skin=(142, 92, 66),
        blush=(150, 60, 50),
        blush_strength=0.2,
        lips=(128, 40, 62),
        lip_strength=0.8,
        brow=(18, 13, 12),
        brow_weight=1.1,
        iris=(58, 34, 20),
        lid=(170, 110, 60),
        lid_strength=0.5,
        lashes=1.3,
    ),
    hair=(20, 15, 15),
    hair_shine=(92, 72, 66),
    hair_volume=2.2,
    hairline=7.7,
    parting=2.8,
    hair_length=17.0,
    shirt=(186, 142, 62),
    wall=((176, 196, 190), (96, 122, 120)),
    lamps=((255, 226, 180), (190, 230, 220)),
)

PEOPLE: Final = {one.name: one for one in (MIRA, DARIO, NOOR)}


@final
@dataclass(frozen=True, slots=True)
class Pose:
    """Where a head is at one moment."""

    yaw: float
    """Degrees, to the picture's right."""
    pitch: float
    """Degrees, down."""
    roll: float
    """Degrees, clockwise as seen."""
    shift: tuple[float, float]
    """Cm to the right and up."""
    expression: Expression


def pose_at(persona: Persona, t: float) -> Pose:
    """The person's natural motion at t seconds; it loops after LOOP."""
    phase = persona.seed * 0.7

    def sway(*terms: tuple[int, float]) -> float:
        """Sum harmonics of the loop: so many turns, so high."""
        return sum(
            high * math.sin(2 * math.pi * turns * t / LOOP + phase * (turns + 1))
            for turns, high in terms
        )

    talking = max(0.0, sway((1, 0.5), (2, 0.5)) + 0.35)
    syllables = abs(sway((29, 0.5), (41, 0.35), (17, 0.3)))
    return Pose(
        yaw=sway((1, 14.0), (2, 6.5), (5, 2.5)),
        pitch=sway((2, 3.5), (3, 2.5), (7, 0.8)),
        roll=sway((1, 3.0), (3, 2.2)),
        shift=(sway((1, 1.2), (3, 0.5)), sway((2, 0.5), (5, 0.25))),
        expression=Expression(
            blink=_blinking(persona, t),
            mouth=min(1.35, talking * syllables * 1.15),
            smile=0.6 + sway((1, 0.3), (2, 0.2)),
            brows=max(0.0, sway((3, 0.14), (4, 0.12))),
        ),
    )


AT_REST: Final = Pose(0.0, 0.0, 0.0, (0.0, 0.0), Expression(smile=0.8))
"""For portraits: frontal, eyes open, a slight smile."""


def render(
    persona: Persona, t: float, size: tuple[int, int] = (1280, 720), *, detail: float = 1.5
) -> Image:
    """The person at t seconds, BGR (height, width, 3); `detail` is the oversampling."""
    return render_pose(persona, pose_at(persona, t), t, size, detail=detail)


def render_pose(
    persona: Persona,
    pose: Pose,
    t: float,
    size: tuple[int, int],
    *,
    detail: float = 2.0,
    zoom: float = 1.0,
) -> Image:
    """The person in a pose of one's own choice; t moves the background alone."""
    wide = round(size[0] * detail), round(size[1] * detail)
    canvas = _background(persona, t, wide)
    stage = _Stage(canvas, pose, zoom)
    paints = _paints(persona)
    head = anatomy.face(persona.build, pose.expression)
    shell = anatomy.hair(persona.hair_volume, persona.hairline, persona.parting)
    if persona.hair_length:
        stage.hair(anatomy.curtain(persona.hair_length, front=False), paints.hair, sway=0.85)
    stage.body(anatomy.shirt(persona.build, front=False), paints.cloth, gloss=0.0, follow=0.0)
    stage.body(anatomy.neck(persona.build), paints.plain, gloss=0.06, follow=0.35)
    stage.body(anatomy.shirt(persona.build, front=True), paints.cloth, gloss=0.0, follow=0.0)
    stage.hair(anatomy.scalp(shell), paints.hair, sway=1.0)
    for ear in anatomy.ears(persona.build):
        stage.body(ear, paints.plain, gloss=0.06, follow=1.0)
    stage.head(head, paints.skin, anatomy.mouth(head.points[:468]))
    stage.hair(shell, paints.hair, sway=1.0)
    if persona.hair_length:
        stage.hair(anatomy.curtain(persona.hair_length, front=True), paints.hair, sway=1.0)
    small = resized(np.clip(canvas, 0, 255).astype(np.uint8), size)
    return np.ascontiguousarray(small[..., ::-1])


@final
@dataclass(frozen=True, slots=True)
class _Paints:
    skin: Floats
    plain: Floats
    hair: Floats
    cloth: Floats


@cache
def _paints(persona: Persona) -> _Paints:
    face = skin.paint_skin(persona.complexion, persona.seed)
    plain = np.empty((64, 64, 3), np.float32)
    plain[:] = np.array(persona.complexion.skin) * np.array([0.97, 0.93, 0.91])
    return _Paints(
        np.dstack([face, skin.eye_mask(), skin.lip_mask()]),
        plain,
        skin.paint_hair(persona.hair, persona.hair_shine, persona.seed + 1),
        skin.paint_cloth(persona.shirt, persona.seed + 2),
    )


@final
class _Stage:
    """Draws meshes onto an RGB float canvas, the far ones first, as one pose places them."""

    def __init__(self, canvas: Floats, pose: Pose, zoom: float) -> None:
        self._canvas = canvas
        self._pose = pose
        self._height, self._width = canvas.shape[:2]
        self._focal = _CAMERA * _FACE_SHARE * self._height * zoom

    def body(self, mesh: Mesh, paint: Floats, *, gloss: float, follow: float) -> None:
        """Skin or cloth; `follow` is how far it turns with the head."""
        drawn = self._drawn(mesh, follow)
        if drawn is None:
            return
        values, mask, part = drawn
        colour = sampled(paint, values[..., :2]) * _lit(values[..., 2:5], values[..., 5:6])
        colour += _gleam(values[..., 2:5], 14.0) * (255 * gloss)
        self._over(colour, softened(mask.astype(np.float32) / 255, 0.7), part)

    def head(self, mesh: Mesh, paint: Floats, inside: tuple[Mesh, Mesh]) -> None:
        """The face with what shows between its lips."""
        dark, teeth = inside
        for each, paint_of_it in ((dark, _MOUTH_COLOUR), (teeth, _TEETH_COLOUR)):
            drawn = self._drawn(each, 1.0)
            if drawn is not None:
                values, mask, part = drawn
                shade = 0.55 + 0.45 * np.sin(np.pi * np.clip(values[..., :1], 0.05, 0.95))
                self._over(paint_of_it * shade, mask.astype(np.float32) / 255, part)
        drawn = self._drawn(mesh, 1.0)
        if drawn is None:
            return
        values, mask, part = drawn
        texels = sampled(paint, values[..., :2])
        eye, lip = texels[..., 3:4], texels[..., 4:5]
        normals = values[..., 2:5]
        light = _lit(normals, values[..., 5:6])
        light += (np.float32(0.92) - light) * eye * 0.75
        colour = texels[..., :3] * light
        colour += _gleam(normals, 22.0) * (255 * (0.085 + 0.10 * lip)) * (1 - eye)
        self._over(colour, softened(mask.astype(np.float32) / 255, 0.7), part)

    def hair(self, mesh: Mesh, paint: Floats, *, sway: float) -> None:
        """Strands, thinning out at the edge; the mesh's shade says how far inside, cm."""
        drawn = self._drawn(mesh, sway)
        if drawn is None:
            return
        values, mask, part = drawn
        texels = sampled(paint, values[..., :2])
        inside = values[..., 5] + (texels[..., 3] - 0.5) * 1.3
        normals = values[..., 2:5]
        alpha = np.clip(inside / 0.55, 0, 1)
        alpha *= np.clip(softened(mask.astype(np.float32) / 255, 1.2) * 2 - 1, 0, 1)
        alpha *= np.clip(normals[..., 2] * 9, 0, 1) * np.clip(values[..., 5] * 3, 0, 1)
        band = np.exp(-(((normals[..., 1:2] - 0.52) / 0.2) ** 2)) * (0.5 + texels[..., 3:4])
        depth = 0.45 + 0.55 * np.clip(values[..., 5:6] / 2.0, 0, 1)
        colour = texels[..., :3] * _lit(normals, depth) * (1 + 0.55 * band)
        self._over(colour, alpha, part)

    def _drawn(self, mesh: Mesh, follow: float) -> tuple[Floats, Image, tuple[slice, slice]] | None:
        turn = _turn(self._pose, follow)
        pivot = np.array([0, -7.0, -4.0], np.float32)
        points = (mesh.points - pivot) @ turn.T + pivot
        points[:, :2] += np.array(self._pose.shift, np.float32) * np.float32(0.4 + 0.6 * follow)
        normals = mesh.normals() @ turn.T
        scale = self._focal / (_CAMERA - points[:, 2:3])
        middle = np.array([self._width / 2, self._height * 0.47], np.float32)
        places = middle + points[:, :2] * scale * np.array([1, -1], np.float32)
        attributes = np.concatenate([mesh.texture, normals, mesh.shade[:, None]], 1)
        return rasterise(
            places.astype(np.float32),
            points[:, 2],
            mesh.triangles,
            attributes.astype(np.float32),
            (self._width, self._height),
        )

    def _over(self, colour: Floats, alpha: Floats, part: tuple[slice, slice]) -> None:
        under = self._canvas[part]
        under += (colour - under) * alpha[..., None]


def _turn(pose: Pose, follow: float) -> Floats:
    yaw, pitch, roll = (
        math.radians(angle * follow) for angle in (pose.yaw, pose.pitch, -pose.roll)
    )
    about_y = np.array(
        [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
    )
    about_z = np.array(
        [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    )
    turn: Floats = about_z @ about_x @ about_y
    return turn.astype(np.float32)


def _lit(normals: Floats, shade: Floats) -> Floats:
    """Light on a surface, (rows, columns, 3)."""
    towards = (normals @ _unit(_KEY))[..., None]
    key = np.clip((towards + _WRAP) / (1 + _WRAP), 0, 1)
    fill = np.clip((normals @ _unit(_FILL))[..., None] * 0.5 + 0.5, 0, 1)
    edge = np.clip(1 - np.abs(normals[..., 2:3]), 0, 1) ** 3
    rim = np.clip((normals @ _unit(_RIM))[..., None], 0, 1) * edge
    light: Floats = (_AMBIENT + _KEY_COLOUR * key + _FILL_COLOUR * fill) * shade + _RIM_COLOUR * rim
    return light


def _gleam(normals: Floats, tightness: float) -> Floats:
    half = _unit(_unit(_KEY) + np.array([0, 0, 1], np.float32))
    shine: Floats = np.clip((normals @ half)[..., None], 0, 1) ** tightness
    return shine


def _unit(vector: Floats) -> Floats:
    return vector / np.float32(np.linalg.norm(vector))


def _blinking(persona: Persona, t: float) -> float:
    """Four blinks a loop, at uneven times, each 0.28 s long."""
    closed = 0.0
    for share in (0.06, 0.31, 0.52, 0.83):
        start = (share + persona.seed * 0.013) % 1 * LOOP
        away = abs((t - start + LOOP / 2) % LOOP - LOOP / 2)
        closed = max(closed, 1 - away / 0.14)
    return closed * closed * (3 - 2 * closed)


def _background(persona: Persona, t: float, size: tuple[int, int]) -> Floats:
    """A room out of focus whose lamps drift, RGB (height, width, 3)."""
    width, height = size[0] // 8, size[1] // 8
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    aspect = size[0] / size[1]
    mix = np.clip(0.5 + 0.32 * x + 0.38 * y, 0, 1)[..., None]
    first, last = (np.array(colour, np.float32) for colour in persona.wall)
    room = first + (last - first) * mix
    drift = 0.05 * math.sin(2 * math.pi * t / LOOP)
    shelf = 1 / (1 + np.exp(-(x - 0.42 - drift) * 26)) * (1 / (1 + np.exp((y - 0.55) * 18)))
    room *= 1 - 0.32 * shelf[..., None]
    window = np.exp(-(((x + 0.78 + drift) / 0.24) ** 8) - ((y + 0.35) / 0.62) ** 8)
    room += np.array([38, 40, 40]) * window[..., None]
    for index in range(9):
        turn = 2 * math.pi * (t / LOOP + index * 0.37)
        at_x = -0.9 + 0.23 * index + 0.06 * math.sin(turn)
        at_y = -0.55 + 0.8 * ((index * 0.618) % 1) + 0.07 * math.cos(turn)
        radius = 0.07 + 0.05 * ((index * 0.414) % 1)
        away = np.hypot((x - at_x) * aspect, y - at_y) / radius
        glow = np.clip((1.15 - away) * 5, 0, 1) * (0.16 + 0.05 * math.sin(turn * 2))
        lamp = np.array(persona.lamps[index % len(persona.lamps)], np.float32)
        room += (lamp - room) * glow[..., None]
    large = softened(room.astype(np.float32), 1.6)
    u, v = np.meshgrid(
        (np.arange(size[0], dtype=np.float32) + 0.5) / size[0],
        (np.arange(size[1], dtype=np.float32) + 0.5) / size[1],
    )
    return sampled(large, np.dstack([u, v]))
