"""The bodies of the procedural people: meshes around MediaPipe's canonical face.

Lengths are the canonical face's (about centimetres): x to the picture's right, y up,
z towards the camera, the origin within the head.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray

from relayd.emulator.swap import canonical
from relayd.emulator.swap.nets import Floats

SKULL = np.array([0.0, 1.2, -3.0], np.float32)
"""The middle of the skull."""
SKULL_RADII = np.array([7.75, 9.8, 10.6], np.float32)
"""Half width, height and depth of the skull."""

EYE_OPENING = 0.26
"""Cm by which the lids stand further apart than the canonical face's."""
_UPPER_LIDS = ((246, 161, 160, 159, 158, 157, 173), (466, 388, 387, 386, 385, 384, 398))
_LOWER_LIDS = ((7, 163, 144, 145, 153, 154, 155), (249, 390, 373, 374, 380, 381, 382))
_LID_FOLDS = ((247, 30, 29, 27, 28, 56, 190), (467, 260, 259, 257, 258, 286, 414))
"""The row of points above each upper lid."""
_UPPER_LIP = (
    191, 80, 81, 82, 13, 312, 311, 310, 415, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    183, 42, 41, 38, 12, 268, 271, 272, 407, 184, 74, 73, 72, 11, 302, 303, 304, 408,
)  # fmt: skip
_LOWER_INNER_LIP = (95, 88, 178, 87, 14, 317, 402, 318, 324)
_UPPER_INNER_LIP = (191, 80, 81, 82, 13, 312, 311, 310, 415)
_UPPER_ROWS = (
    (_UPPER_INNER_LIP, 1.0),
    ((183, 42, 41, 38, 12, 268, 271, 272, 407), 0.8),
    ((184, 74, 73, 72, 11, 302, 303, 304, 408), 0.4),
)
"""The upper lip's rows of points from its edge up, and how far each follows the edge."""
_LOWER_ROWS = (
    (_LOWER_INNER_LIP, 1.0),
    ((96, 89, 179, 86, 15, 316, 403, 319, 325), 0.8),
    ((77, 90, 180, 85, 16, 315, 404, 320, 307), 0.4),
)
"""The lower lip's rows of points from its edge down, and how far each follows the edge."""
_MOUTH_Y = -4.25
"""Where closed lips meet."""


@final
@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles with smooth normals."""

    points: Floats
    """(n, 3)"""
    triangles: NDArray[np.int32]
    texture: Floats
    """(n, 2) places in the material's texture, 0..1."""
    shade: Floats
    """(n,) how much light reaches the place, 0..1."""

    def normals(self) -> Floats:
        """Smooth unit normals (n, 3)."""
        corner = self.points[self.triangles]
        flat = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        summed = np.zeros_like(self.points)
        for each in range(3):
            np.add.at(summed, self.triangles[:, each], flat)
        length = np.linalg.norm(summed, axis=1, keepdims=True) + 1e-9
        unit: Floats = (summed / length).astype(np.float32)
        return unit


@final
@dataclass(frozen=True, slots=True)
class Build:
    """What makes one head differ from another; 1 is the canonical face."""

    width: float = 1.0
    jaw: float = 1.0
    chin: float = 0.0
    """How far the chin reaches down, cm."""
    nose: float = 1.0
    eyes: float = 1.0
    lips: float = 1.0
    brow: float = 0.0
    """How far the brow ridge comes forward, cm."""
    neck: float = 4.6
    """Radius, cm."""
    shoulders: float = 19.0
    """Half the shoulders' width, cm."""


@final
@dataclass(frozen=True, slots=True)
class Expression:
    """What a face does at one moment; all 0 is at rest."""

    blink: float = 0.0
    """0 open, 1 closed."""
    mouth: float = 0.0
    """How far the jaw drops, cm."""
    smile: float = 0.0
    """-1..1"""
    brows: float = 0.0
    """How far the brows go up, cm."""


def face(build: Build, expression: Expression) -> Mesh:
    """The canonical face as this person has it, with this expression, and the head's sides."""
    points = _built(build)
    _express(points, expression)
    inner = set(canonical.INNER_LIPS)
    skin = [one for one in canonical.TRIANGLES.tolist() if not inner.issuperset(one)]
    rings, triangles = _sides(points)
    texture = np.concatenate([canonical.UV, *(uv for _, uv in rings)])
    everything = np.concatenate([points, *(ring for ring, _ in rings)])
    return rounded(
        Mesh(
            everything.astype(np.float32),
            np.array(skin + triangles, np.int32),
            texture.astype(np.float32),
            _hollows(everything),
        )
    )


def mouth(face_points: Floats) -> tuple[Mesh, Mesh]:
    """What open lips show: the dark of the mouth, and the upper teeth."""
    line = face_points[list(canonical.INNER_LIPS)] - np.array([0, 0, 0.9], np.float32)
    middle = line.mean(0, keepdims=True) - np.array([0, 0, 0.6], np.float32)
    count = len(line)
    fan = [[count, (each + 1) % count, each] for each in range(count)]
    dark = Mesh(
        np.concatenate([line, middle]),
        np.array(fan, np.int32),
        np.zeros((count + 1, 2), np.float32),
        np.ones(count + 1, np.float32),
    )
    upper = face_points[list(_UPPER_INNER_LIP)]
    top = upper * np.array([0.86, 1, 1], np.float32) + np.array([0, 0.45, -0.42], np.float32)
    bottom = top - np.array([0, 0.98, 0.02], np.float32)
    bottom[:, 1] += 0.10 * np.abs(np.linspace(-1, 1, len(top), dtype=np.float32)) ** 2
    teeth = strip(top, bottom, (0.0, 1.0))
    return dark, teeth


def ears(build: Build) -> list[Mesh]:
    """Both ears, plain shells."""
    shells = []
    for side in (-1.0, 1.0):
        shell = ellipsoid(
            np.array([side * 7.75 * build.width, -0.1, -3.3], np.float32),
            np.array([0.75, 2.35, 1.25], np.float32),
        )
        tilted = shell.points.copy()
        tilted[:, 2] -= (tilted[:, 1] + 0.1) * 0.22
        tilted[:, 0] += side * (tilted[:, 1] + 0.1) * 0.16
        shells.append(Mesh(tilted, shell.triangles, shell.texture * 0 + 0.06, shell.shade * 0.82))
    return shells


def neck(build: Build) -> Mesh:
    """A column from within the jaw to below the collar."""
    heights = np.linspace(-4.0, -19.0, 16)
    around = np.linspace(-np.pi, np.pi, 40)
    flare = 1 + 1.3 * np.clip((-11.5 - heights) / 7.0, 0, 1) ** 1.6
    y, angle = np.meshgrid(heights, around, indexing="ij")
    radius = build.neck * flare[:, None]
    points = np.stack([radius * np.sin(angle), y, -4.2 + radius * 0.92 * np.cos(angle)], 2).reshape(
        -1, 3
    )
    below_chin = np.clip((-9.0 - build.chin - points[:, 1]) / 5.0, 0, 1)
    return _grid_mesh(points, 16, 40, 0.45 + 0.5 * below_chin)


def shirt(build: Build, *, front: bool) -> Mesh:
    """Shoulders and chest in one cloth with a round neckline; its back lies behind the neck."""
    rows = np.linspace(0, 1, 26)
    around = np.linspace(-0.55, 0.55, 60) * np.pi
    if not front:
        around = np.linspace(0.5, 1.5, 60) * np.pi
    part, angle = np.meshgrid(rows, around, indexing="ij")
    collar = build.neck * 1.42
    half = collar + (build.shoulders - collar) * np.sqrt(np.clip(part / 0.52, 0, 1))
    drop = -13.2 - 3.6 * np.clip(part / 0.5, 0, 1) ** 1.15 - 26 * np.clip(part - 0.4, 0, 1) ** 1.2
    ahead = np.cos(angle)
    points = np.stack(
        [
            half * np.sin(angle),
            drop - 2.6 * np.clip(ahead, 0, 1) * (1 - part) ** 2,
            -4.5 + (collar + 3.2 * part**0.7 * 1.4) * ahead,
        ],
        2,
    ).reshape(-1, 3)
    shade = 0.72 + 0.28 * np.clip(part * 4, 0, 1)
    mesh = _grid_mesh(points, 26, 60, shade.ravel() * (1.0 if front else 0.6))
    if front:
        return mesh
    seen_from_within = mesh.triangles[:, ::-1].copy()
    return Mesh(mesh.points, seen_from_within, mesh.texture, mesh.shade)


def hair(volume: float, hairline: float, parting: float) -> Mesh:
    """A shell over the skull; `shade` is not light but the distance inside the hairline, cm.

    `volume` cm above the skull, `hairline` its height over the head's middle, cm,
    `parting` where it is highest, cm to the right.
    """
    rows, columns = 60, 120
    down, angle = np.meshgrid(
        np.linspace(0.01, 1, rows), np.linspace(-np.pi, np.pi, columns), indexing="ij"
    )
    polar = down * np.pi * 0.66
    direction = np.stack(
        [np.sin(polar) * np.sin(angle), np.cos(polar), np.sin(polar) * np.cos(angle)], 2
    )
    x, y, z = np.moveaxis(SKULL + direction * SKULL_RADII, 2, 0)
    front = hairline - 0.042 * np.abs(x - parting) ** 1.75
    temple = -2.4 + 1.55 * np.clip(z + 3.4, 0, None)
    blend = np.clip((z - 0.5) / 4.5, 0, 1)
    inside = (y - front) * blend + np.minimum(y - temple, 6.0) * (1 - blend)
    swell = 0.12 + volume * np.clip(inside / 2.6, 0, 1) ** 0.55 * (0.45 + 0.55 * np.cos(polar) ** 2)
    points = SKULL + direction * (SKULL_RADII + swell[..., None])
    texture = np.stack([angle / (2 * np.pi) + 0.5, down], 2).reshape(-1, 2)
    mesh = _grid_mesh(points.reshape(-1, 3), rows, columns, inside.ravel())
    return Mesh(mesh.points, mesh.triangles, texture.astype(np.float32), mesh.shade)


def scalp(hair_shell: Mesh) -> Mesh:
    """What lies under the hair and a little beyond its edge, so that no gap shows."""
    inward = SKULL + (hair_shell.points - SKULL) * np.float32(0.97)
    return Mesh(inward, hair_shell.triangles, hair_shell.texture, hair_shell.shade + 3)


def curtain(length: float, *, front: bool) -> Mesh:
    """Long hair: behind the neck, or the locks that fall in front of the shoulders."""
    rows, columns = 30, 48
    if front:
        halves = [_lock(side, length, rows) for side in (-1.0, 1.0)]
        return joined(halves)
    down, angle = np.meshgrid(
        np.linspace(0, 1, rows), np.linspace(0.42 * np.pi, 1.58 * np.pi, columns), indexing="ij"
    )
    radius = (9.3 + 1.2 * np.sin(down * np.pi * 0.8)) * (1 - 0.3 * (1 - down) ** 3)
    points = np.stack(
        [radius * np.sin(angle), 8 - (length + 9) * down, -3.6 + radius * 0.9 * np.cos(angle)], 2
    ).reshape(-1, 3)
    mesh = _grid_mesh(points, rows, columns, np.zeros(len(points)))
    seen_from_within = mesh.triangles[:, ::-1].copy()
    texture = np.stack([angle.ravel() / (2 * np.pi), 0.3 + 0.7 * down.ravel()], 1)
    inside = np.minimum(np.minimum(9 * (1 - down), 5 * down), 1.5).ravel()
    return Mesh(
        mesh.points, seen_from_within, texture.astype(np.float32), inside.astype(np.float32)
    )


def ellipsoid(centre: Floats, radii: Floats) -> Mesh:
    """A closed ellipsoid."""
    rows, columns = 18, 24
    polar, angle = np.meshgrid(
        np.linspace(0.01, np.pi - 0.01, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij"
    )
    direction = np.stack(
        [np.sin(polar) * np.sin(angle), np.cos(polar), np.sin(polar) * np.cos(angle)], 2
    )
    return _grid_mesh(
        (centre + direction * radii).reshape(-1, 3), rows, columns, np.ones(rows * columns)
    )


def strip(top: Floats, bottom: Floats, light: tuple[float, float]) -> Mesh:
    """A ribbon between two lines of n points; u runs along it, v across."""
    count = len(top)
    triangles = []
    for each in range(count - 1):
        triangles += [[each, count + each, each + 1], [each + 1, count + each, count + each + 1]]
    along = np.linspace(0, 1, count)
    texture = np.concatenate([np.stack([along, along * 0], 1), np.stack([along, along * 0 + 1], 1)])
    shade = np.repeat(np.array(light, np.float32), count)
    return Mesh(
        np.concatenate([top, bottom]).astype(np.float32),
        np.array(triangles, np.int32),
        texture.astype(np.float32),
        shade,
    )


def joined(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0] + [len(one.points) for one in meshes[:-1]])
    return Mesh(
        np.concatenate([one.points for one in meshes]),
        np.concatenate([one.triangles + s for one, s in zip(meshes, starts, strict=True)]).astype(
            np.int32
        ),
        np.concatenate([one.texture for one in meshes]),
        np.concatenate([one.shade for one in meshes]),
    )


def rounded(mesh: Mesh) -> Mesh:
    """Four triangles for each one, curved along the normals (the PN triangle's edge middles)."""
    edges = np.sort(mesh.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, which = np.unique(edges, axis=0, return_inverse=True)
    start, end = unique.T
    normals, along = mesh.normals(), mesh.points[end] - mesh.points[start]
    bend = (along * normals[start]).sum(1, keepdims=True) * normals[start]
    bend -= (along * normals[end]).sum(1, keepdims=True) * normals[end]
    middles = (mesh.points[start] + mesh.points[end]) / 2 - bend / 8
    ab, bc, ca = (which.reshape(-1, 3) + len(mesh.points)).T
    a, b, c = mesh.triangles.T
    corners = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    return Mesh(
        np.concatenate([mesh.points, middles]).astype(np.float32),
        np.concatenate([np.stack(one, 1) for one in corners]).astype(np.int32),
        np.concatenate([mesh.texture, (mesh.texture[start] + mesh.texture[end]) / 2]),
        np.concatenate([mesh.shade, (mesh.shade[start] + mesh.shade[end]) / 2]),
    )


def _built(build: Build) -> Floats:
    points = canonical.XYZ.copy()
    x, y, z = points.T.copy()
    low = np.clip((-1.0 - y) / 6.0, 0, 1)
    points[:, 0] *= build.width * (1 + (build.jaw - 1) * low)
    points[:, 1] -= build.chin * np.clip((-4.8 - y) / 4.0, 0, 1)
    nose = _near(x, y, (0, -0.9), (2.3, 2.2)) * (z > 4.5)
    points[:, 0] *= 1 + (build.nose - 1) * nose
    points[:, 2] += (build.nose - 1) * 0.9 * nose
    for line in (canonical.RIGHT_EYE, canonical.LEFT_EYE):
        centre = canonical.XYZ[list(line)].mean(0)
        near = _near(x, y, (centre[0], centre[1]), (2.6, 1.7))
        points[:, :2] += (points[:, :2] - centre[:2]) * ((build.eyes - 1) * near)[:, None]
    lips = _near(x, y, (0, _MOUTH_Y), (3.2, 1.9))
    points[:, 1] += (y - _MOUTH_Y) * (build.lips - 1) * lips
    points[:, 2] += 0.5 * (build.lips - 1) * lips
    points[:, 2] += build.brow * np.clip(1 - np.abs(y - 3.9) / 1.6, 0, 1)
    _close_lips(points)
    _open_eyes(points)
    return points


def _close_lips(points: Floats) -> None:
    """The canonical mouth stands ajar; this one rests closed."""
    gap = points[list(_UPPER_INNER_LIP), 1] - points[list(_LOWER_INNER_LIP), 1]
    for rows, share in ((_UPPER_ROWS, -0.4), (_LOWER_ROWS, 0.68)):
        for row, follow in rows:
            points[list(row), 1] += gap * np.float32(share * follow)


def _open_eyes(points: Floats) -> None:
    """The canonical eyes are half shut; these are awake."""
    arch = np.sin(np.linspace(0, np.pi, 9, dtype=np.float32))[1:-1]
    for upper, lower, fold in zip(_UPPER_LIDS, _LOWER_LIDS, _LID_FOLDS, strict=True):
        points[list(upper), 1] += EYE_OPENING * 0.7 * arch
        points[list(lower), 1] -= EYE_OPENING * 0.3 * arch
        points[list(fold), 1] += 0.09 * arch


def _express(points: Floats, now: Expression) -> None:
    for upper, lower, fold in zip(_UPPER_LIDS, _LOWER_LIDS, _LID_FOLDS, strict=True):
        travel = points[list(lower)] - points[list(upper)]
        points[list(upper)] += travel * np.float32(now.blink * 0.97)
        points[list(upper), 2] += np.float32(0.12 * now.blink)
        points[list(fold)] += travel * np.float32(now.blink * 0.42)
    x, y, z = canonical.XYZ.T
    hinge = np.clip((z + 1.5) / 4.5, 0, 1)
    jaw = np.clip((_MOUTH_Y - y) / 0.7, 0, 1) * hinge * (1 - 0.35 * np.clip(np.abs(x) / 6, 0, 1))
    jaw[list(_UPPER_LIP)] = 0
    jaw[list(_LOWER_INNER_LIP)] = 1 - 0.5 * (np.abs(x[list(_LOWER_INNER_LIP)]) / 2.2) ** 2
    jaw[[78, 308, 61, 291, 62, 292, 76, 306]] = 0.35
    points[:, 1] -= jaw * now.mouth
    points[:, 2] -= 0.25 * jaw * now.mouth
    corner = _near(np.abs(x), y, (2.5, -4.3), (1.9, 1.6))
    points[:, 0] += np.sign(x) * corner * 0.55 * now.smile
    points[:, 1] += corner * 0.75 * now.smile
    cheek = _near(np.abs(x), y, (4.3, -0.6), (2.4, 2.0))
    points[:, 1] += 0.22 * cheek * now.smile
    points[:, 2] += 0.25 * cheek * now.smile
    points[:, 1] += now.brows * np.clip(1 - np.abs(y - 4.6) / 1.9, 0, 1)


def _near(x: Floats, y: Floats, at: tuple[float, float], reach: tuple[float, float]) -> Floats:
    """How near places are to one on the face, 0..1; `reach` is where it has come down to 0.37."""
    near: Floats = np.exp(-(((x - at[0]) / reach[0]) ** 2) - ((y - at[1]) / reach[1]) ** 2)
    return near.astype(np.float32)


def _sides(points: Floats) -> tuple[list[tuple[Floats, Floats]], list[list[int]]]:
    """Rings of skin from the face's rim round to the back, each with texture places."""
    rim = list(canonical.OVAL)
    line, places = points[rim], canonical.UV[rim]
    rings = []
    for step in (0.12, 0.3, 0.6, 1.0):
        back = line - np.array([0, 0, 8.0 * step], np.float32)
        scaled = (back - SKULL) / SKULL_RADII
        round_skull = SKULL + scaled / np.linalg.norm(scaled, axis=1, keepdims=True) * SKULL_RADII
        under = line * np.array([1 - 0.42 * step, 1, 1]) + np.array([0, 0.9 * step, -6.5 * step])
        upper = np.clip((line[:, 1:2] + 1.0) / 3.0, 0, 1)
        outward = places + (places - 0.5) * 0.10 * step
        rings.append(((round_skull * upper + under * (1 - upper)).astype(np.float32), outward))
    indices = [rim] + [
        list(range(len(points) + k * len(rim), len(points) + (k + 1) * len(rim))) for k in range(4)
    ]
    triangles = []
    for inner, outer in pairwise(indices):
        for each in range(len(rim)):
            after = (each + 1) % len(rim)
            triangles += [
                [inner[each], inner[after], outer[each]],
                [inner[after], outer[after], outer[each]],
            ]
    return rings, triangles


def _hollows(points: Floats) -> Floats:
    """Where less light comes: eye sockets, beside the nose, below the lip, under the jaw."""
    x, y, z = points.T
    dark = 0.20 * _near(np.abs(x), y, (2.0, 2.6), (0.9, 1.1))
    dark += 0.16 * _near(np.abs(x), y, (3.3, 3.3), (1.7, 0.6))
    dark += 0.16 * _near(np.abs(x), y, (1.9, -1.7), (0.6, 0.8))
    dark += 0.22 * _near(x, y, (0, -2.5), (1.3, 0.5))
    dark += 0.14 * _near(x, y, (0, -6.2), (1.6, 0.5))
    dark += 0.45 * np.clip((-6.0 - y) / 4.0, 0, 1) * np.clip((2.2 - z) / 3.0, 0, 1)
    lit: Floats = np.clip(1 - dark, 0.3, 1).astype(np.float32)
    return lit


def _lock(side: float, length: float, rows: int) -> Mesh:
    """One lock, from the temple over the ear down in front of the shoulder."""
    columns = 18
    down, across = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    tuck = np.minimum(1, 0.1 + 2.2 * down)  # its root lies flat under the shell
    wave = 0.35 * np.sin(down * 9 + across * 2) * down
    inner = 7.3 + 0.7 * np.sin(down * np.pi) + 0.2 * down
    x = side * (inner - 0.9 * (1 - down) ** 6 + across * (2.1 + 0.9 * down) * tuck + wave)
    y = 6.5 - (length + 6.0) * down + 0.8 * across
    z = (
        -0.8
        - 2.8 * (1 - down) ** 3
        - 3.5 * across**1.5
        + 2.6 * down * (1 - across)
        + 1.2 * np.sin(across * np.pi)
    )
    points = np.stack([x, y, z], 2).reshape(-1, 3)
    mesh = _grid_mesh(points, rows, columns, np.zeros(len(points)))
    inside = np.minimum(np.minimum(across, 1 - across) * 5.0, np.minimum(1 - down, down) * 7.0)
    texture = np.stack([0.5 + side * 0.2 + 0.12 * across.ravel(), 0.25 + 0.75 * down.ravel()], 1)
    return Mesh(
        mesh.points,
        mesh.triangles if side > 0 else mesh.triangles[:, ::-1].copy(),
        texture.astype(np.float32),
        inside.ravel().astype(np.float32),
    )


def _grid_mesh(
    points: NDArray[np.floating], rows: int, columns: int, shade: NDArray[np.floating]
) -> Mesh:
    """Triangles over a grid of points; normals point outwards where columns run anticlockwise."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    c, d = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    v, u = np.divmod(index.ravel(), columns)
    texture = np.stack([u / (columns - 1), v / (rows - 1)], 1)
    return Mesh(
        points.astype(np.float32),
        triangles.astype(np.int32),
        texture.astype(np.float32),
        shade.astype(np.float32),
    )
