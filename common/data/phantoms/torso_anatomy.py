"""The anatomy of the torso phantom: every tissue as a shape painted on a canvas, back to front.

Tissue coordinates are millimeters of an average adult: x to the patient's right, y to the front, z to the head. The
origin lies in the mid-sagittal plane, in the middle of the trunk's depth, at the height of the iliac crest (L4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import FAR_MM, Canvas, Region
from .fields import filtered_noise, spline_field
from .shapes import ellipse, ellipsoid, rotation_matrix, smooth_max, smooth_min, spline_path, torso_section
from .torso_patient import Patient

Array = np.ndarray

TORSO_LABELS = {
    0: "background",
    1: "liver",
    2: "spleen",
    3: "right_kidney",
    4: "left_kidney",
    5: "stomach",
    6: "gallbladder",
    7: "aorta",
    8: "inferior_vena_cava",
    9: "colon",
    10: "bladder",
    11: "heart",
    12: "lungs",
}
_CLASS = {name: number for number, name in TORSO_LABELS.items()}

_Z_LOW_MM, _Z_HIGH_MM = -300, 520

# Trunk by height. Half-axes in mm of the muscles' outer surface and of the body cavity.
_HEIGHT = (-240, -200, -160, -120, -80, -40, 0, 40, 80, 120, 160, 200, 240, 280, 320, 360, 400, 440)
_PROFILES = {
    "wall_width": (165, 170, 170, 163, 154, 147, 141, 137, 137, 139, 143, 147, 150, 153, 160, 166, 150, 100),
    "wall_front": (84, 88, 92, 93, 92, 91, 91, 91, 94, 98, 103, 106, 107, 104, 97, 86, 70, 60),
    "wall_back": (88, 95, 100, 103, 104, 102, 99, 98, 98, 99, 100, 101, 102, 102, 100, 96, 88, 80),
    "cavity_width": (20, 40, 54, 64, 86, 106, 114, 116, 118, 123, 128, 131, 132, 127, 117, 99, 66, 15),
    "cavity_front": (45, 54, 64, 73, 79, 81, 81, 81, 84, 88, 93, 96, 96, 91, 81, 66, 46, 25),
    "cavity_back": (58, 62, 72, 84, 90, 85, 80, 79, 80, 81, 83, 85, 87, 88, 87, 83, 72, 45),
    # How far, and over which half-width, the muscles of the back push the cavity forward.
    "back_bump": (6, 6, 6, 6, 10, 18, 26, 29, 29, 27, 22, 18, 15, 13, 12, 12, 12, 12),
    "back_bump_width": (40, 40, 40, 40, 50, 60, 66, 66, 64, 60, 52, 46, 42, 40, 38, 36, 34, 32),
    # Subcutaneous fat: in front, at the side and behind, relative to the patient's thickness.
    "fat_front": (0.9, 0.9, 0.9, 1.0, 1.1, 1.1, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    "fat_side": (1.2, 1.3, 1.2, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6),
    "fat_back": (1.2, 1.3, 1.3, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6),
}

# Vertebral bodies from the coccyx up: height of the center, its y, half-width and half-depth of the body in mm.
_VERTEBRAE = np.array(
    [
        (-88, -84, 30, 9), (-58, -60, 30, 15),  # sacrum, continued by its own shape
        (-28, -41, 25, 17), (5, -33, 24.5, 17), (41, -29, 24, 17), (75, -30, 23, 17), (109, -33, 22, 16.5),  # L5-L1
        (142, -37, 20.5, 16), (172, -40, 19, 15.5), (200, -43, 18, 15), (227, -46, 17, 15), (252, -47, 16.5, 14.5),
        (276, -48, 16, 14), (299, -48, 15.5, 13.5), (321, -47, 15, 13), (343, -46, 14.5, 12.5), (364, -43, 14.5, 12),
        (384, -39, 14.5, 11.5), (403, -34, 15, 11), (421, -28, 15, 10.5),
    ]
)  # fmt: skip
_FIRST_LUMBAR, _FIRST_THORACIC = 2, 7
_RIB_HEIGHT = np.array([147, 177, 205, 232, 257, 281, 304, 326, 348, 369, 389, 408])  # 12th to 1st, at the spine


@dataclass(frozen=True)
class Scene:
    """What the painters share.

    Attributes:
        canvas: Coordinates of the body wall and the bones.
        soft: The same image over coordinates with an extra deformation, for the organs.
        patient: The patient.
        rng: Source of randomness.
        spacing_mm: Grid spacing along (i, j, k).
        skin_mm: Signed distance of the skin; the grid's shape, as all the following.
        wall_mm: Signed distance of the muscles' outer surface.
        cavity_mm: Signed distance of the chest, abdominal and pelvic cavity.
        plumb_mm: Height over the table's plane through the origin, along gravity, at the scale of tissue coordinates.
        diaphragm_mm: Height of the diaphragm above (negative: below) a voxel.
        mottle: Fine texture of variance 1.
        cloud: Coarse texture of variance 1.
    """

    canvas: Canvas
    soft: Canvas
    patient: Patient
    rng: np.random.Generator
    spacing_mm: tuple[float, float, float]
    skin_mm: Array
    wall_mm: Array
    cavity_mm: Array
    plumb_mm: Array
    diaphragm_mm: Array
    mottle: Array
    cloud: Array

    def hu(self, tissue: str) -> float:
        """Attenuation of a tissue in this patient."""
        return self.patient.tissue_hu[tissue]

    def textured(self, region: Region, hu: float, fine_hu: float, coarse_hu: float = 0.0) -> Array:
        """Attenuation of a tissue with texture, for every voxel of a region."""
        texture = np.float32(fine_hu) * self.mottle[region.slices]
        return np.float32(hu) + texture + np.float32(coarse_hu) * self.cloud[region.slices]

    def organ_box(
        self, organ: str, center_mm: tuple[float, float, float], reach_mm: float, tilt_deg: tuple[float, float, float]
    ) -> tuple[Region, Array, Array, Array, float]:
        """Cut out an organ's region and turn it into the organ's own axes.

        Returns:
            The region, the organ's x, y and z in mm there, and the organ's relative size.
        """
        place = self.patient.organs[organ]
        center = np.add(center_mm, place.shift_mm)
        reach = reach_mm * place.size
        region = self.soft.box(center - reach, center + reach)
        turn = (rotation_matrix(tilt_deg) @ place.rotation / place.size).astype(np.float32)
        dx, dy, dz = (
            region.x - np.float32(center[0]),
            region.y - np.float32(center[1]),
            region.z - np.float32(center[2]),
        )
        local = [turn[0, a] * dx + turn[1, a] * dy + turn[2, a] * dz for a in range(3)]
        return region, local[0], local[1], local[2], place.size


def build_scene(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    spacing_mm: tuple[float, float, float],
    plumb_mm: Array,
) -> Scene:
    """Measure the body's surfaces and draw the fields that all tissues share.

    Args:
        canvas: Coordinates, image and labels.
        patient: The patient.
        rng: Source of randomness.
        spacing_mm: Grid spacing along (i, j, k).
        plumb_mm: Height along gravity, see `Scene`. Shape of the grid.

    Returns:
        The scene, with nothing painted yet.
    """
    shape = canvas.hu.shape
    soft = canvas.displaced([np.float32(3.0) * spline_field(rng, shape, spacing_mm, 45.0) for _ in range(3)])
    step = np.clip(((canvas.z - _Z_LOW_MM) + 0.5).astype(np.int32), 0, _Z_HIGH_MM - _Z_LOW_MM)
    at = {name: _by_height(_HEIGHT, values)[step] for name, values in _PROFILES.items()}
    x, y = canvas.x, canvas.y
    if patient.female:
        at["wall_width"] = at["wall_width"] - np.float32(4)

    wall = torso_section(x, y, at["wall_width"], at["wall_front"], at["wall_back"])
    cavity = torso_section(x, y, at["cavity_width"], at["cavity_front"], at["cavity_back"])
    bump = at["back_bump"] / (1 + (x / at["back_bump_width"]) ** 4)
    cavity = smooth_max(cavity, (bump - at["cavity_back"]) - y, 10)

    fat = 5 + 30 * patient.fatness
    sex = 0.8 if not patient.female else 1.15
    skin = torso_section(
        x,
        y,
        at["wall_width"] + 2 + fat * sex * at["fat_side"],
        at["wall_front"] + 2 + fat * at["fat_front"],
        at["wall_back"] + 1 + fat * sex * at["fat_back"],
    )
    # The furrow over the spine, between the two columns of muscle, and the gluteal cleft.
    furrow = np.where(y < 0, np.exp(-((x / 11) ** 2)), np.float32(0))
    wall = wall + (9 - 5 * np.clip((canvas.z - 150) / 100, 0, 1)) * furrow
    skin = skin + (7 + 11 * np.clip((-60 - canvas.z) / 60, 0, 1)) * furrow
    # The table presses the back flat.
    skin = smooth_max(skin, -(y + 104 + fat * sex * 0.75), 12)
    if patient.female:
        bust = ellipsoid(np.abs(x) - 74, y - 92 - 0.5 * fat, canvas.z - 292, (58 + 0.5 * fat, 26 + 0.5 * fat, 52))
        skin = smooth_min(skin, bust, 14)

    return Scene(
        canvas=canvas,
        soft=soft,
        patient=patient,
        rng=rng,
        spacing_mm=spacing_mm,
        skin_mm=skin,
        wall_mm=wall,
        cavity_mm=cavity,
        plumb_mm=plumb_mm,
        diaphragm_mm=_diaphragm_height(soft) - soft.z,
        mottle=filtered_noise(rng, shape, [4.0 / s for s in spacing_mm]),
        cloud=spline_field(rng, shape, spacing_mm, 16.0),
    )


def paint_torso(scene: Scene) -> None:
    """Paint every tissue of the torso, from the skin inward and the bones last."""
    paint_body_wall(scene)
    paint_lungs_and_heart(scene)
    paint_mediastinum(scene)
    paint_bowel(scene)
    paint_colon(scene)
    paint_pancreas(scene)
    paint_stomach(scene)
    paint_spleen(scene)
    paint_liver(scene)
    paint_gallbladder(scene)
    paint_pelvic_organs(scene)
    paint_loin_muscles(scene)
    paint_kidneys(scene)
    paint_great_vessels(scene)
    paint_chest_cage(scene)
    paint_pelvic_bones(scene)
    paint_spine(scene)


def _by_height(height_mm: tuple[float, ...] | Array, values: tuple[float, ...] | Array) -> Array:
    """Table of a profile in steps of 1 mm between `_Z_LOW_MM` and `_Z_HIGH_MM`, float32."""
    z = np.arange(_Z_LOW_MM, _Z_HIGH_MM + 1)
    table = np.interp(z, height_mm, values)
    kernel = np.hanning(27)
    padded = np.pad(table, 13, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(np.float32)


def _lookup(table: Array, z: Array) -> Array:
    """Read a table of `_by_height` at every point."""
    return table[np.clip((z - _Z_LOW_MM + 0.5).astype(np.int32), 0, len(table) - 1)]


_SPINE_Y = _by_height(_VERTEBRAE[:, 0], _VERTEBRAE[:, 1])
_SPINE_HALF_WIDTH = _by_height(_VERTEBRAE[:, 0], _VERTEBRAE[:, 2])
_SPINE_HALF_DEPTH = _by_height(_VERTEBRAE[:, 0], _VERTEBRAE[:, 3])


def _spine_front(z: float) -> float:
    """The y at which the front of the vertebral bodies lies at a height."""
    row = int(np.clip(z - _Z_LOW_MM, 0, len(_SPINE_Y) - 1))
    return float(_SPINE_Y[row] + _SPINE_HALF_DEPTH[row])


def _diaphragm_height(canvas: Canvas) -> Array:
    """Height of the diaphragm's upper surface over every point: two domes, the right one higher."""
    side = np.where(canvas.x > 0, np.float32(1), np.float32(-1))
    across = np.abs(canvas.x) - 68
    across = np.where(across > 0, across / 72, across / 135)
    along = (canvas.y + 8) / np.where(canvas.y > -8, np.float32(112), np.float32(78))
    squared = across * across + along * along
    return 219 + 7 * side * np.clip(np.abs(canvas.x) / 40, 0, 1) - 80 * squared * (0.35 + 0.65 * squared)


# ---------------------------------------------------------------------------------------------------- body wall


def paint_body_wall(scene: Scene) -> None:
    """Paint skin, subcutaneous fat, the muscles of the wall with the fat between them, and fat in the cavity."""
    everywhere = scene.canvas.everywhere()
    x, y, z = everywhere.x, everywhere.y, everywhere.z
    fat, muscle = scene.hu("fat"), scene.hu("muscle")
    everywhere.paint(scene.skin_mm, scene.hu("skin"))
    everywhere.paint(scene.skin_mm + 2.2, scene.textured(everywhere, fat, 5, 4))
    if scene.patient.female:
        gland = ellipsoid(np.abs(x) - 74, y - 98, z - 288, (40, 26, 36)) + 7 * scene.cloud
        everywhere.paint(np.maximum(gland, scene.skin_mm + 9), 25, strength=np.clip(scene.mottle * 0.5 + 0.4, 0, 1))

    wall, cavity = scene.wall_mm, scene.cavity_mm
    aging = (scene.patient.age_years - 25) / 60
    streaks = (8 + 30 * aging) * np.clip(scene.mottle - 0.9, 0, 2)
    everywhere.paint(wall, scene.textured(everywhere, muscle, 4, 4) - streaks)
    planes = _fat_planes(scene, everywhere)
    everywhere.blend(planes * everywhere.coverage(np.maximum(wall, -cavity)), fat)
    armpit = ellipsoid(np.abs(x) - 132, y + 2, z - 345, (16, 26, 48)) + 8 * scene.cloud + 6 - 10 * scene.patient.fatness
    everywhere.paint(np.maximum(armpit, 10 - cavity), scene.textured(everywhere, fat, 12, 6))
    # Fat behind the sacrum, between the buttocks.
    cleft = np.maximum(np.abs(x) - 5 - 0.25 * np.clip(-y - 85, 0, 60), np.maximum(y + 88, z + 75))
    everywhere.paint(np.maximum(cleft, scene.skin_mm + 2.2), fat)
    everywhere.paint(cavity, scene.textured(everywhere, fat + 3, 9, 5))


def _fat_planes(scene: Scene, region: Region) -> Array:
    """Share of fat within the muscles of the wall: the planes that part one muscle from the next."""
    x, y, z = region.x, region.y, region.z
    wall, cavity = scene.wall_mm, scene.cavity_mm
    across = np.abs(x)
    thickness = np.maximum(cavity - wall, np.float32(4))
    depth = -wall / thickness
    chest = np.clip((z - 190) / 40, 0, 1)
    hips = np.clip((-10 - z) / 40, 0, 1)
    belly = (1 - chest) * (1 - hips)
    front = np.clip((y - 30) / 15, 0, 1)

    def plane(distance: Array, width_mm: float) -> Array:
        return np.exp(-((distance / np.float32(width_mm)) ** 2))

    # The three flat muscles of the flank, now closer and now wider apart.
    flank = np.clip((across - 66) / 10, 0, 1) * belly * np.clip(0.55 + 0.5 * scene.cloud, 0, 1)
    planes = 0.5 * flank * np.maximum(plane((depth - 0.36) * thickness, 1.6), plane((depth - 0.68) * thickness, 1.6))
    # The white line between the straight muscles of the belly, and the gap to the oblique ones.
    straight = np.maximum(plane(x, 4.0), 0.6 * plane(across - 68, 3.5))
    planes = np.maximum(planes, 0.75 * front * np.clip((z + 120) / 40, 0, 1) * (1 - chest) * straight)
    # The long muscles of the back, parted from the spine and into two columns.
    back = np.clip((-y - 55) / 12, 0, 1) * (1 - hips)
    planes = np.maximum(planes, 0.5 * back * np.maximum(plane(x, 4.0), plane(across - 24 - 3 * scene.cloud, 2.0)))
    # The largest muscle of the buttock lies behind the middle one.
    seam = (y + 70) - 0.42 * (across - 60) + 3 * scene.cloud
    buttock = np.clip((across - 50) / 10, 0, 1) * hips
    planes = np.maximum(planes, 0.7 * buttock * np.maximum(plane(seam, 2.2), plane(seam - 62 - 0.2 * across, 2.2)))
    planes = np.maximum(planes, 0.7 * np.clip((-125 - z) / 25, 0, 1) * plane(scene.cloud, 0.22) * (y > -30))
    # Loose fat between the rib cage and the muscles of the shoulder girdle.
    girdle = np.clip((z - 235) / 30, 0, 1)
    return np.maximum(planes, 0.6 * girdle * plane(cavity - 14 + 2 * scene.cloud, 3.0))


# -------------------------------------------------------------------------------------------------------- chest


def paint_lungs_and_heart(scene: Scene) -> None:
    """Paint lungs with their vessels, the diaphragm below, and the heart in the fat of the mediastinum between them."""
    region = scene.soft.box((-170, -110, 95), (170, 110, 450))
    if region.hu.size == 0:
        return
    x, y, z = region.x, region.y, region.z
    cavity, above = scene.cavity_mm[region.slices], scene.diaphragm_mm[region.slices]
    cloud, mottle = scene.cloud[region.slices], scene.mottle[region.slices]
    heart = _heart_shape(scene, region)
    # The mediastinum: thin behind the breastbone, wide around the great vessels, narrow along the spine.
    waist = 17 + (9 + 7 * np.clip((z - 320) / 40, 0, 1)) * np.exp(-(((y - 6) / 30) ** 2)) + 2.5 * cloud
    center = smooth_min(np.abs(x + 1) - waist, heart["muscle"] - 3 - 3 * scene.patient.fatness, 14)
    nodes = 85 * np.clip(mottle - 1.6, 0, 1)
    region.paint(np.maximum(cavity, center), scene.hu("fat") + 8 + 7 * mottle + nodes)
    lung = np.maximum(smooth_max(cavity + 2, above * np.float32(0.75), 4), -center)
    region.paint(np.maximum(cavity + 1, np.abs(above + 2) * 0.75 - 1.6), scene.hu("muscle"))
    air = -868 + 45 * scene.rng.random() - np.float32(0.45) * y + 14 * mottle
    region.paint(lung, air, _CLASS["lungs"])
    # Fissures, then vessels that fan out from the hila.
    fissure = np.minimum(
        np.abs(z - 285 - 1.1 * (y + 10)),
        np.where(x > 0, np.abs(z - 288 + 0.15 * y) - np.where(y < 0, np.float32(6), np.float32(0)), FAR_MM),
    )
    region.blend(0.12 * region.coverage(np.maximum(lung + 3, 2 * fissure - 2.0)), 0.0)
    aims = scene.rng.normal(0, 1, (2, 12, 2))
    trees = [
        _grow_tree(scene.rng, (side * 33, -4 + 12 * dy, 294 + 14 * dz), (side * 0.8, dy, 1.2 * dz - 0.1), 28, 4.6, 7)
        for side, row in zip((-1, 1), aims, strict=True)
        for dy, dz in row
    ]
    share = scene.soft.strands(np.concatenate(trees))[region.slices]
    region.blend(share * region.coverage(lung + 2), 45)

    region.paint(heart["muscle"], scene.textured(region, scene.hu("myocardium"), 3), _CLASS["heart"])
    for part in ("left_heart", "right_heart"):
        region.paint(np.maximum(heart[part], heart["muscle"] + 2.5), scene.hu(part))


def _heart_shape(scene: Scene, region: Region) -> dict[str, Array]:
    """Signed distances of the heart's outer surface (`muscle`) and of its left and right cavities."""
    place = scene.patient.organs["heart"]
    middle = np.array([-16.0, 26.0, 260.0])
    offset = middle + place.shift_mm
    turn = (place.rotation.T / place.size).astype(np.float32)
    dx, dy, dz = region.x - np.float32(offset[0]), region.y - np.float32(offset[1]), region.z - np.float32(offset[2])
    x, y, z = (turn[a, 0] * dx + turn[a, 1] * dy + turn[a, 2] * dz + np.float32(middle[a]) for a in range(3))
    # The long axis of the ventricles points left, forward and down.
    axes = rotation_matrix((0, 32, -36)).astype(np.float32)

    def chamber(at: tuple[float, float, float], semi_axes_mm: tuple[float, float, float]) -> Array:
        gap = (x - at[0], y - at[1], z - at[2])
        u, v, w = (axes[a, 0] * gap[0] + axes[a, 1] * gap[1] + axes[a, 2] * gap[2] for a in range(3))
        return ellipsoid(u, v, w, semi_axes_mm) * np.float32(place.size)

    left, left_atrium = chamber((-46, 30, 250), (38, 20, 20)), chamber((-8, -6, 276), (33, 18, 21))
    right, right_atrium = chamber((-13, 56, 250), (38, 18, 27)), chamber((26, 26, 256), (22, 25, 30))
    ventricles = smooth_min(left - 11, right - 4, 12)
    atria = smooth_min(right_atrium - 3, left_atrium - 3, 12)
    return {
        "muscle": smooth_min(ventricles, atria, 10),
        "left_heart": np.minimum(left, left_atrium),
        "right_heart": np.minimum(right, right_atrium),
    }


def _grow_tree(
    rng: np.random.Generator,
    root_mm: tuple[float, float, float],
    direction: tuple[float, float, float],
    length_mm: float,
    radius_mm: float,
    generations: int,
) -> Array:
    """Grow a forking tree of vessels as short pieces: x, y, z, radius, length. Shape (n, 5)."""
    step = 2.5
    tips = np.array([root_mm], dtype=float)
    heading = np.array([direction], dtype=float)
    pieces = []
    for _ in range(generations):
        heading = heading / np.linalg.norm(heading, axis=1, keepdims=True)
        length = length_mm * rng.uniform(0.7, 1.3, len(tips))
        for _ in range(int(length_mm / step)):
            tips = tips + heading * (length / length_mm * step)[:, None]
            heading = heading + rng.normal(0, 0.06, heading.shape)
            pieces.append(np.column_stack([tips, np.full(len(tips), radius_mm), length / length_mm * step]))
        spread = rng.normal(0, 0.55, heading.shape)
        tips = np.concatenate([tips, tips])
        heading = np.concatenate([heading + spread, heading - spread])
        length_mm, radius_mm = length_mm * 0.78, radius_mm * 0.74
    return np.concatenate(pieces)


def paint_mediastinum(scene: Scene) -> None:
    """Paint the vessels above the heart, windpipe and gullet."""
    soft, wall = scene.soft, scene.hu("gut_wall")
    trunk, vein = scene.hu("pulmonary_artery"), scene.hu("right_heart")
    for tissue, points in (
        (trunk, [(-20, 52, 280, 13), (-14, 34, 303, 14), (-8, 12, 312, 13)]),
        (trunk, [(-10, 16, 312, 12), (-32, 0, 314, 11), (-46, -8, 306, 8)]),
        (trunk, [(-8, 14, 310, 11), (20, 6, 308, 11), (46, -2, 302, 8)]),
        (scene.hu("left_heart"), [(8, -8, 284, 9), (40, -12, 280, 6)]),
        (scene.hu("left_heart"), [(-16, -8, 286, 9), (-42, -14, 282, 6)]),
        (vein, [(27, 22, 282, 9), (25, 24, 320, 9), (23, 22, 362, 8.5), (30, 22, 395, 7)]),
        (vein, [(22, 24, 366, 7), (0, 36, 374, 7), (-26, 32, 388, 6.5)]),
        (scene.hu("aorta"), [(4, 16, 360, 5.5), (14, 12, 400, 5.5), (20, 8, 425, 5)]),
        (scene.hu("aorta"), [(-14, 0, 362, 4.5), (-20, 2, 400, 4.5), (-22, 2, 425, 4.5)]),
    ):
        region, distance, _ = soft.tube(spline_path(points, 5))
        around = np.where(region.label == _CLASS["heart"], FAR_MM, distance - 1.5)
        region.paint(around, scene.hu("fat") + 8, 0)
        region.paint(distance, tissue)
    paths = [[(0, 8, 430, 9), (1, 4, 380, 9), (2, -2, 330, 8.5), (2, -3, 322, 8.5)]]
    paths += [[(2, -3, 322, 7), (side * 22, -6, 306, 6.5), (side * 40, -8, 298, 5)] for side in (-1, 1)]
    airways = [soft.tube(spline_path(points, 3)) for points in paths]
    for region, distance, _ in airways:
        region.paint(distance - 1.5, 30, 0)
    for region, distance, _ in airways:
        region.paint(distance, -985)
    gullet: list[tuple[float, ...]] = [(-2, _spine_front(z) + 8, z, 7.5) for z in (430, 390, 350, 320)]
    gullet += [(-4, _spine_front(290) + 9, 290, 8), (-9, _spine_front(250) + 14, 250, 8.5), (-16, -8, 214, 8.5)]
    region, distance, _ = soft.tube(spline_path(gullet, 4))
    region.paint(distance - 1.5, scene.hu("fat") + 10, 0)
    region.paint(distance, wall - 5)
    region.paint(distance + 6, -300, strength=np.clip(scene.cloud[region.slices] - 0.6, 0, 1))


# ------------------------------------------------------------------------------------------------------ abdomen


def paint_bowel(scene: Scene) -> None:
    """Paint the small bowel as one long folded tube, and the vessels of its mesentery."""
    rng, place = scene.rng, scene.patient.organs["bowel"]
    count = 400
    knots = rng.standard_normal((44, 3))
    walk = spline_path(np.column_stack([np.arange(44) * 100.0, np.zeros(44), np.zeros(44), knots]), 1.0)[:, 3:]
    walk = walk[np.linspace(0, len(walk) - 1, count).astype(int)]
    semi = np.array([88, 40, 106]) * place.size
    center = np.array([-4, 26, -14]) + place.shift_mm
    folded = np.tanh(0.9 * walk)
    # The mesentery keeps the loops in front of the spine and away from the midline's back.
    points = center + folded * semi + np.column_stack([np.zeros(count), 12 * np.abs(folded[:, 0]), np.zeros(count)])
    radius = (
        13.5
        - 3.5 * scene.patient.fatness
        + 2.5 * np.sin(np.linspace(0, 40, count)) * rng.random()
        + rng.normal(0, 0.4, count)
    )
    mesentery = _grow_tree(rng, (0, -6, 95), (0.05, 0.35, -1), 40, 3.6, 6)
    share = scene.soft.strands(mesentery)
    everywhere = scene.soft.everywhere()
    inside = everywhere.coverage(scene.cavity_mm + 6)
    everywhere.blend(share * inside, scene.hu("portal_vein"))

    region, distance, nearest = scene.soft.tube(np.column_stack([points, radius]))
    if region.hu.size == 0:
        return
    distance = np.maximum(distance, scene.cavity_mm[region.slices] + 5)
    region.paint(distance, scene.textured(region, scene.hu("gut_wall"), 5))
    filling = np.clip(walk[:, 0] * 9, -18, 18) + scene.hu("gut_fluid")
    content = filling.astype(np.float32)[nearest]
    region.paint(distance + 2.6, content + 5 * scene.cloud[region.slices])
    gas = ((walk[:, 1] > 0.9) & (points[:, 1] > 25))[nearest]
    level = points[:, 1].astype(np.float32)[nearest]
    region.paint(
        np.maximum(distance + 3, level + 2 - scene.plumb_mm[region.slices]), -900, strength=gas.astype(np.float32)
    )


def paint_colon(scene: Scene) -> None:
    """Paint the large bowel with haustra, stool and gas."""
    rng, place = scene.rng, scene.patient.organs["colon"]
    sag = rng.uniform(-45, 20)
    frame = np.array(
        [
            (82, 22, -42, 24), (90, 14, -12, 27), (100, -2, 25, 25), (98, -2, 62, 24), (82, 22, 88, 22),
            (48, 52, 84 + 0.5 * sag, 21), (0, 62, 74 + sag, 20), (-48, 54, 90 + 0.5 * sag, 19), (-88, 20, 132, 18),
            (-106, -12, 128, 16), (-110, -22, 80, 15), (-108, -18, 30, 14), (-100, -2, -22, 14), (-74, 18, -58, 14),
            (-36, 26, -74, 16), (4, 0, -70, 16), (24, -22, -88, 15), (8, -50, -98, 16), (0, -64, -122, 19),
            (0, -56, -152, 17), (0, -48, -176, 11),
        ]
    )  # fmt: skip
    frame[:, :3] += place.shift_mm * np.clip((frame[:, 2:3] + 140) / 80, 0, 1) + rng.normal(0, 3, (len(frame), 3))
    frame[:, 3] *= place.size * rng.uniform(0.85, 1.1) * (1.1 - 0.15 * scene.patient.fatness)
    path = spline_path(frame, 4.0)
    along = np.arange(len(path)) * 4.0
    haustra = 1 + 0.13 * np.sin(along / 32 * 2 * np.pi) * (path[:, 2] > -80)
    path[:, 3] *= haustra
    region, distance, nearest = scene.soft.tube(path)
    if region.hu.size == 0:
        return
    confined = np.maximum(distance, scene.cavity_mm[region.slices] + 1)
    region.paint(confined - 2, scene.textured(region, scene.hu("fat"), 8), 0)
    region.paint(confined, scene.hu("gut_wall"), _CLASS["colon"])
    segment = rng.standard_normal(len(path) // 14 + 4)
    kind = np.interp(np.arange(len(path)) / 14, np.arange(len(segment)), segment).astype(np.float32)
    # Stool: mottled by small bubbles; it fills the segment up to a level that differs from segment to segment.
    bubbles = np.clip(0.9 * scene.mottle[region.slices] + 0.5 * scene.cloud[region.slices] + 0.15, 0, 2)
    stool = 35 - 190 * bubbles * bubbles
    region.paint(confined + 3, stool)
    level = (path[:, 1] + path[:, 3] * np.clip(0.15 - 0.9 * kind, -0.8, 1.2)).astype(np.float32)[nearest]
    region.paint(np.maximum(confined + 3, level - scene.plumb_mm[region.slices]), -960)


def paint_pancreas(scene: Scene) -> None:
    """Paint pancreas, duodenum, and the veins behind them."""
    shift = scene.patient.organs["pancreas"].shift_mm
    duodenum = [
        (30, 30, 116, 14),
        (48, 12, 108, 14),
        (52, 0, 80, 14),
        (40, -4, 56, 13),
        (8, 2, 46, 11),
        (-28, 4, 62, 11),
    ]
    region, distance, _ = scene.soft.tube(spline_path(np.add(duodenum, [*shift, 0]), 4))
    region.paint(distance - 2, scene.hu("fat"), 0)
    region.paint(distance, scene.hu("gut_wall"))
    region.paint(distance + 3, scene.textured(region, scene.hu("gut_fluid"), 6, 8))
    gland = [
        (33, 14, 84, 12),
        (28, 18, 100, 14),
        (4, 27, 116, 9),
        (-28, 12, 126, 10),
        (-62, -14, 140, 11),
        (-80, -24, 148, 9),
    ]
    region, distance, _ = scene.soft.tube(spline_path(np.add(gland, [*shift, 0]), 4))
    lobules = distance + 3.0 * scene.mottle[region.slices] * (0.3 + scene.patient.age_years / 100)
    region.paint(distance - 3, scene.textured(region, scene.hu("fat"), 8), 0)
    region.paint(lobules, scene.textured(region, scene.hu("pancreas"), 6))
    for points in (
        [(10, 8, 22, 5), (6, 10, 70, 5.5), (8, 9, 108, 6.5), (20, 4, 132, 7), (36, 8, 156, 7), (48, 12, 164, 6)],
        [(8, 8, 110, 5), (-26, 2, 122, 4.5), (-60, -22, 140, 4), (-86, -30, 158, 3.5)],
    ):
        region, distance, _ = scene.soft.tube(spline_path(np.add(points, [*shift, 0]), 3))
        region.paint(distance, scene.hu("portal_vein"))


def paint_stomach(scene: Scene) -> None:
    """Paint the stomach: wall, fluid or food, and gas above a level."""
    rng, place = scene.rng, scene.patient.organs["stomach"]
    fullness = rng.uniform(0.72, 1.12) * place.size
    points = np.array(
        [
            (-44, -22, 206, 20), (-60, -20, 198, 30), (-70, 0, 176, 30), (-68, 26, 150, 28), (-48, 46, 124, 25),
            (-16, 54, 110, 21), (12, 46, 112, 15), (28, 36, 116, 11),
        ],
        dtype=float,
    )  # fmt: skip
    points[:, :3] += place.shift_mm * np.linspace(1, 0.3, len(points))[:, None]
    points[:, 3] *= fullness
    region, distance, _ = scene.soft.tube(spline_path(points, 4))
    if region.hu.size == 0:
        return
    folds = np.maximum(distance + 1.2 * scene.cloud[region.slices], 4 - scene.diaphragm_mm[region.slices])
    folds = np.maximum(folds, scene.cavity_mm[region.slices] + 4)
    region.paint(folds - 3, scene.textured(region, scene.hu("fat"), 8), 0)
    region.paint(folds, scene.hu("gut_wall"), _CLASS["stomach"])
    kind = rng.choice(["water", "food", "contrast"], p=[0.5, 0.38, 0.12])
    if kind == "food":
        content = 38 + 22 * scene.cloud[region.slices] - 60 * np.clip(scene.mottle[region.slices] - 1, 0, 2)
    else:
        content = scene.textured(region, 12 if kind == "water" else rng.uniform(90, 220), 4)
    region.paint(folds + 3.5, content)
    level = float(points[0, 1] + rng.uniform(22, 72))
    region.paint(np.maximum(folds + 3.5, level - scene.plumb_mm[region.slices]), -970)


def paint_spleen(scene: Scene) -> None:
    """Paint the spleen: a crescent along the left wall, hollowed by stomach and kidney."""
    region, u, v, w, size = scene.organ_box("spleen", (-96, -42, 162), 80, (18, -14, 12))
    if region.hu.size == 0:
        return
    body = ellipsoid(u, v, w, (40, 50, 58))
    hollow = ellipsoid(u - 52, v - 28, w - 2, (40, 44, 66))
    spleen = smooth_max(body, -hollow, 6) * size
    spleen = smooth_max(spleen, scene.cavity_mm[region.slices] + 3, 5)
    spleen = smooth_max(spleen, 3.5 - scene.diaphragm_mm[region.slices] * np.float32(0.75), 5)
    spleen = spleen + 1.0 * scene.cloud[region.slices]
    moire = 22 if scene.patient.phase == "arterial" else 1.5
    region.paint(spleen - 3, scene.textured(region, scene.hu("fat"), 8), 0)
    region.paint(spleen, scene.textured(region, scene.hu("spleen"), 3, moire), _CLASS["spleen"])


def paint_liver(scene: Scene) -> None:
    """Paint the liver under the right dome of the diaphragm, with fissure, veins and sometimes cysts."""
    rng, place = scene.rng, scene.patient.organs["liver"]
    region = scene.soft.box((-110, -100, 10), (160, 110, 250))
    if region.hu.size == 0:
        return
    x, y, z = (c - np.float32(s) for c, s in zip((region.x, region.y, region.z), place.shift_mm, strict=True))
    # The lower surface: the right lobe reaches far down and back, the left one lies flat under the front wall.
    lobes = []
    for inward, offset in (((0.80, 0.12, 0.58), 105.0), ((0.38, 0.64, 0.67), 129.0)):
        turned = (place.rotation @ np.array(inward)).astype(np.float32)
        lobes.append(offset + 90 * (1 - place.size) - (turned[0] * x + turned[1] * y + turned[2] * z))
    under = smooth_min(lobes[0], lobes[1], 14)
    top = 4 - scene.diaphragm_mm[region.slices] * np.float32(0.75)
    liver = smooth_max(under, smooth_max(top, scene.cavity_mm[region.slices] + 2, 6), 10)
    liver = smooth_max(liver, -x - rng.uniform(48, 92), 14)
    liver = smooth_max(liver, 28 - z, 14)
    # Bare strip in front of the spine: aorta, crura and vena cava lie there.
    liver = smooth_max(liver, -ellipse(x + 8, y - spine_y(z) - 16, 34.0, 30.0), 8)
    # The right kidney and its fat lie behind the right lobe, not within it.
    liver = smooth_max(liver, -ellipsoid(x - 56, y + 66, z - 84, (42, 46, 66)), 10)
    liver = liver + 0.8 * scene.cloud[region.slices]
    region.paint(liver - 2.5, scene.textured(region, scene.hu("fat"), 8), 0)
    parenchyma = scene.textured(region, scene.hu("liver"), 3, 2.5)
    region.paint(liver, parenchyma, _CLASS["liver"])

    inside = region.coverage(liver + 4)
    portal = [
        _grow_tree(rng, (44, 10, 160), d, 34, 5.0, 5) for d in ((0.9, -0.2, 0.1), (0.5, 0.4, 0.6), (-0.8, 0.5, 0.5))
    ]
    hepatic = [
        _grow_tree(rng, (22, -14, 208), d, 40, 5.2, 4) for d in ((0.9, 0.0, -0.5), (0.35, 0.8, -0.5), (-0.6, 0.8, -0.3))
    ]
    for trees, tissue in ((portal, "portal_vein"), (hepatic, "hepatic_vein")):
        share = scene.soft.strands(np.concatenate(trees))[region.slices]
        # Without contrast blood is a little darker than liver; never let a steatotic liver look injected.
        region.blend(np.clip(share * 1.2, 0, 1) * inside, scene.hu(tissue))
    fissure = np.maximum(np.abs(x + 4 + 0.15 * (y - 40)) - 2.0, np.maximum(-liver - 30, 18 - y))
    cleft = np.maximum(np.maximum(fissure, liver), z - 172)
    region.paint(cleft, scene.hu("fat") + 30, 0)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.6, 0.2, 0.1, 0.1]))):
        at = [rng.uniform(20, 110), rng.uniform(-50, 60), rng.uniform(110, 200)]
        radius = rng.uniform(5, 14)
        cyst = ellipsoid(region.x - at[0], region.y - at[1], region.z - at[2], (radius, radius * 1.1, radius))
        region.paint(np.maximum(cyst, liver + 3), rng.uniform(2, 35))


def spine_y(z: Array) -> Array:
    """The y of the vertebral bodies' center at every point's height."""
    return _lookup(_SPINE_Y, z)


def paint_gallbladder(scene: Scene) -> None:
    """Paint the gallbladder under the liver, now and then with stones."""
    region, u, v, w, size = scene.organ_box("gallbladder", (66, 42, 104), 45, (-38, -12, 0))
    if region.hu.size == 0:
        return
    pear = ellipsoid(u / (1 - 0.006 * w), v / (1 - 0.006 * w), w, (14, 15, 32)) * size
    region.paint(pear - 1.5, scene.hu("fat"), 0)
    region.paint(pear, scene.hu("gut_wall"), _CLASS["gallbladder"])
    region.paint(pear + 1.5, scene.textured(region, scene.hu("gallbladder"), 3))
    if scene.rng.random() < 0.15:
        region.paint(np.maximum(pear + 2, v + 8), 260, strength=0.7)


def paint_kidneys(scene: Scene) -> None:
    """Paint both kidneys in their fat, with cortex, pyramids, sinus fat and pelvis, and their veins."""
    for side, name, height in ((1, "kidney_right", 76), (-1, "kidney_left", 92)):
        region, u, v, w, size = scene.organ_box(name, (side * 68, -29, height), 80, (10, side * -12, side * -28))
        if region.hu.size == 0:
            continue
        # Bend the long axis around the hilum, which looks to the middle and a little forward.
        medial = -side * u + 9 * (w / 54) ** 2
        body = ellipsoid(medial, v, w, (29, 28, 57)) * size
        body = body + 1.0 * scene.cloud[region.slices]
        pad = 4 + 9 * scene.patient.fatness
        in_cavity = scene.cavity_mm[region.slices] + 3
        kidney = smooth_max(body, in_cavity, 5)
        region.paint(smooth_max(body - pad, in_cavity, 6), scene.textured(region, scene.hu("fat") - 2, 5), 0)
        region.paint(kidney, scene.textured(region, scene.hu("kidney_cortex"), 4), _CLASS[f"{name[7:]}_kidney"])
        pyramids = np.sin(w * np.float32(0.36) + 1.3) * np.sin(np.arctan2(v, medial) * 4)
        region.paint(kidney + 7, scene.hu("kidney_medulla"), strength=np.clip(1.2 * pyramids + 0.75, 0, 1))
        sinus = smooth_min(ellipsoid(medial - 11, v, w, (9, 8, 24)), ellipsoid(medial - 24, v, w, (15, 7, 11)), 6)
        sinus = sinus * size + 1.5 * scene.mottle[region.slices]
        region.paint(np.maximum(sinus, body - 3), scene.textured(region, scene.hu("fat") + 15, 12), 0)
        pelvis = ellipsoid(medial - 15, v, w, (10, 5, 11)) * size
        region.paint(pelvis, scene.hu("kidney_pelvis"))
        if scene.rng.random() < 0.15:
            radius = scene.rng.uniform(6, 18)
            cyst = ellipsoid(medial + 22, v - 6, w - scene.rng.uniform(-35, 35), (radius, radius, radius))
            region.paint(cyst, 8.0, _CLASS[f"{name[7:]}_kidney"])
        shift = scene.patient.organs[name].shift_mm
        front = _spine_front(height)
        veins: list[tuple[float, ...]] = [
            (side * 46 + shift[0], -20 + shift[1], height + shift[2], 5),
            (side * 30, front - 2, height + 8, 5.0),
        ]
        veins += [(18 if side > 0 else -4, front + (6 if side > 0 else 22), height + 12, 5.0)]
        region, distance, _ = scene.soft.tube(spline_path(veins, 3))
        region.paint(distance, scene.hu("vena_cava") + 0.3 * (scene.hu("kidney_cortex") - scene.hu("vena_cava")))


def paint_loin_muscles(scene: Scene) -> None:
    """Paint psoas and iliacus, the square muscle of the loin, and the crura of the diaphragm."""
    muscle = scene.hu("muscle")
    for side in (-1, 1):
        points = [
            (side * 24, -36, 128, 6), (side * 29, -34, 96, 10), (side * 34, -33, 60, 14), (side * 39, -31, 20, 17.5),
            (side * 46, -24, -20, 19), (side * 60, -6, -60, 19), (side * 78, 18, -100, 19), (side * 92, 30, -140, 18),
            (side * 104, 12, -185, 18),
        ]  # fmt: skip
        region, distance, _ = scene.canvas.tube(spline_path(points, 8))
        region.paint(distance - 2, scene.textured(region, scene.hu("fat"), 8), 0)
        region.paint(distance, scene.textured(region, muscle, 7, 4))
        region = scene.canvas.box((-100, -90, -10), (100, -10, 130))
        lateral = side * region.x
        loin = ellipse(lateral - 64 + 0.12 * (region.z - 60), region.y + 63, 24.0, 8.0)
        region.paint(np.maximum(loin, np.abs(region.z - 60) - 62), scene.textured(region, muscle, 7, 4), 0)
        crus: list[tuple[float, ...]] = [
            (side * 13 - 4, _spine_front(70) + 2, 70, 4),
            (side * 16 - 4, _spine_front(120) + 8, 120, 6),
        ]
        crus += [(side * 20 - 4, _spine_front(165) + 12, 165, 5.5), (side * 18 - 4, _spine_front(200) + 24, 205, 4)]
        region, distance, _ = scene.canvas.tube(spline_path(crus, 3))
        region.paint(distance, muscle, 0)


def paint_great_vessels(scene: Scene) -> None:
    """Paint aorta and inferior vena cava with their branches, and plaques in the old."""
    rng, age = scene.rng, scene.patient.age_years
    girth = 0.86 + 0.3 * (age - 25) / 60 + rng.normal(0, 0.05)
    wander = rng.normal(0, 2.5, 2)
    cava: list[tuple[float, ...]] = [
        (10, _spine_front(-8) + 8, -8, 8),
        (20, _spine_front(20) + 9, 20, 10),
        (23, _spine_front(70) + 10, 70, 11),
    ]
    cava += [(23, _spine_front(120) + 13, 120, 12), (25, _spine_front(165) + 22, 165, 13)]
    cava += [(24, _spine_front(195) + 28, 200, 13), (23, 6, 228, 13)]
    region, distance, _ = scene.canvas.tube(spline_path(cava, 5))
    flat = region.z < 150
    distance = np.where(flat, distance + 0.06 * np.abs(region.z - 150) ** 0.8, distance)
    region.paint(distance - 2, scene.hu("fat"), 0, strength=np.clip((150 - region.z) / 20, 0, 1))
    mixing = np.clip((region.z - 95) / 40, 0, 1)  # blood from the legs arrives late and dilutes
    late = scene.hu("vena_cava") - 0.35 * (scene.hu("vena_cava") - 42) * (1 - mixing)
    region.paint(distance, late, _CLASS["inferior_vena_cava"])

    aorta: list[tuple[float, ...]] = [
        (4, 24, 284, 14.5),
        (9, 26, 312, 15),
        (8, 22, 338, 15),
        (0, 10, 352, 14),
        (-14, -8, 354, 13.5),
    ]
    aorta += [(-24, -24, 340, 13), (-26, _spine_front(315) + 2, 315, 12.5), (-25, _spine_front(270) + 3, 270, 12)]
    aorta += [(-20, _spine_front(220) + 8, 220, 11.8), (-12, _spine_front(170) + 12, 170, 11.2)]
    aorta += [(-7, _spine_front(110) + 12, 110, 10.2), (-5, _spine_front(50) + 11, 50, 9.2)]
    aorta += [(-4 + wander[0], _spine_front(8) + 9, 6, 8.4)]
    aorta_path = spline_path(aorta, 5)
    aorta_path[:, 3] *= girth
    blood = scene.hu("aorta")
    for side in (-1, 1):
        iliac: list[tuple[float, ...]] = [
            (-4 + wander[0] + side * 3, _spine_front(6) + 9, 6, 6),
            (side * 26, -18, -32, 5.5),
            (side * 50, -14, -72, 5),
        ]
        iliac += [(side * 72, 22, -112, 4.8), (side * 80, 46, -150, 4.8), (side * 82, 52, -190, 4.6)]
        vein: list[tuple[float, ...]] = [
            (10 + side * 2, _spine_front(-8) + 7, -8, 7),
            (side * 30 + 3, -30, -40, 6.5),
            (side * 52, -26, -76, 6),
        ]
        vein += [(side * 64, 14, -114, 6), (side * 70, 40, -150, 6), (side * 70, 46, -190, 6)]
        for points, hu in ((vein, 0.4 * scene.hu("vena_cava") + 25), (iliac, blood)):
            region, distance, _ = scene.canvas.tube(spline_path(points, 4))
            region.paint(distance - 1.5, scene.hu("fat"), 0)
            region.paint(distance, hu)
    for branch in (
        [(-6, -4, 122, 4), (-6, 16, 128, 3.5), (-26, 18, 136, 3), (10, 18, 138, 3)],
        [(-6, -4, 108, 4), (-5, 14, 96, 3.6), (-4, 14, 40, 3.2)],
    ):
        region, distance, _ = scene.canvas.tube(spline_path(branch, 2.5))
        region.paint(distance, blood)
    region, distance, _ = scene.canvas.tube(aorta_path)
    region.paint(distance - 2, scene.hu("fat"), 0)
    region.paint(distance, blood, _CLASS["aorta"])
    calcified = float(np.clip((age - 55) / 30, 0, 1)) * np.clip(scene.mottle[region.slices] - 1.1, 0, 1)
    region.paint(np.abs(distance + 1) - 1.2, 700, strength=calcified)


# ------------------------------------------------------------------------------------------------------- pelvis


def paint_pelvic_organs(scene: Scene) -> None:
    """Paint the bladder, what lies behind it, and the muscles that line the small pelvis."""
    muscle = scene.hu("muscle")
    region = scene.canvas.box((-120, -100, -215), (120, 110, -60))
    if region.hu.size == 0:
        return
    x, y, z = region.x, region.y, region.z
    lining = np.maximum(np.abs(scene.cavity_mm[region.slices] + 6) - 5, z + 92)
    region.paint(np.maximum(lining, np.abs(y + 10) - 45), scene.textured(region, muscle, 6))
    if scene.patient.female:
        womb = ellipsoid(x - 3, y + 12 - 0.2 * (z + 112), z + 114, (28, 22, 30))
        behind = smooth_min(womb, ellipsoid(np.abs(x) - 38, y + 16, z + 104, (13, 11, 15)), 4)
    else:
        behind = smooth_min(
            ellipsoid(x, y - 4, z + 176, (23, 17, 18)), ellipsoid(np.abs(x) - 14, y + 14, z + 140, (17, 7, 8)), 5
        )
    region, u, v, w, size = scene.organ_box("bladder", (0, 26, -138), 75, (0, 0, 0))
    fill = scene.rng.uniform(0.82, 1.15) * size
    bladder = smooth_max(ellipsoid(u, v, w, (45 * fill, 36 * fill, 38 * fill)), scene.cavity_mm[region.slices] + 6, 6)
    whole = scene.canvas.box((-120, -100, -215), (120, 110, -60))
    whole.paint(behind - 2, scene.textured(whole, scene.hu("fat"), 8), 0)
    whole.paint(behind, scene.textured(whole, scene.hu("myocardium") - 8, 5, 6))
    region.paint(bladder - 2.5, scene.textured(region, scene.hu("fat"), 8), 0)
    region.paint(bladder, scene.hu("muscle") - 10, _CLASS["bladder"])
    region.paint(bladder + 3.5, scene.textured(region, scene.hu("bladder"), 2))


def paint_pelvic_bones(scene: Scene) -> None:
    """Paint iliac wings, sacrum, sockets, heads of the femora and the pubis."""
    region = scene.canvas.box((-190, -125, -240), (190, 90, 12))
    if region.hu.size == 0:
        return
    x, y, z = np.abs(region.x), region.y, region.z
    # The wing: a bowed plate from the sacroiliac joint to the front spine.
    start = (44 - 0.04 * (z + 40), -76 + 0.0 * z)
    end = (124 + 0.12 * np.clip(z + 60, -60, 60), 34 - 0.25 * np.clip(-50 - z, 0, 80))
    ex, ey = end[0] - start[0], end[1] - start[1]
    length = np.sqrt(ex * ex + ey * ey)
    t = ((x - start[0]) * ex + (y - start[1]) * ey) / (length * length)
    across = ((x - start[0]) * ey - (y - start[1]) * ex) / length
    bow = 16 * np.sin(np.pi * np.clip(t, 0, 1)) - 4 * np.sin(2 * np.pi * np.clip(t, 0, 1))
    crest = -2 - 190 * (t - 0.58) ** 2
    half = 3.6 + 4.5 * np.exp(-(((t - 0.02) / 0.16) ** 2)) + 3.0 * np.exp(-(((t - 1) / 0.1) ** 2))
    half = half + 3.5 * np.exp(-(((z - crest) / 10) ** 2)) + 8 * np.clip((-88 - z) / 30, 0, 1)
    wing = smooth_max(np.abs(across - bow) - half, (np.abs(t - 0.5) - 0.5) * length, 4)
    wing = smooth_max(wing, z - crest, 4)
    # Behind, the wing ends higher: the sciatic notch.
    wing = smooth_max(wing, -118 + 50 * np.clip((0.5 - t) / 0.5, 0, 1) - z, 8)
    wing = smooth_max(wing, (t - 0.5 - 0.5 * np.clip((z + 140) / 60, 0, 1)) * length, 6)
    head = ellipsoid(x - 90, y - 2, z + 150, (23, 23, 23))
    socket = smooth_max(ellipsoid(x - 84, y + 1, z + 146, (34, 35, 35)), -(head - 3), 2)
    socket = smooth_max(socket, x - 98 - 0.5 * (z + 150), 4)
    column = ellipsoid(x - 72, y + 34, z + 168, (16, 17, 46))
    pubis = smooth_max(ellipsoid(x - 34, y - 42 - 0.1 * x, z + 176, (36, 10, 13)), 2 - x, 2)
    hip = smooth_min(smooth_min(wing, socket, 8), smooth_min(column, pubis, 5), 8)
    iliacus = smooth_max(np.abs(across - bow + half + 8) - 9 - 4 * t, (np.abs(t - 0.62) - 0.34) * length, 8)
    iliacus = smooth_max(smooth_max(iliacus, z - crest + 6, 6), -112 - z, 8)
    region.paint(iliacus, scene.textured(region, scene.hu("muscle"), 5, 4), 0)
    _paint_bone(scene, region, hip, 2.8)
    neck = ellipsoid(x - 116, y + 6, z + 162, (32, 14, 15))
    shaft = ellipsoid(x - 146, y + 14, z + 196, (19, 20, 50))
    femur = smooth_min(smooth_min(head, neck, 6), shaft, 10)
    _paint_bone(scene, region, femur, 2.6)

    curve = np.interp(
        np.arange(-200, -29), (-200, -178, -150, -120, -90, -62, -40), (-66, -80, -98, -98, -84, -62, -48)
    )
    row = np.clip((z + 200).astype(np.int32), 0, len(curve) - 1)
    center = curve.astype(np.float32)[row]
    drop = np.clip((-44 - z) / 105, 0, 1)
    sacrum = ellipse(x, y - center, 54 - 47 * drop, 19 - 13 * drop)
    wings = 16 * np.clip((x - 22) / 22, 0, 1)
    sacrum = smooth_max(smooth_max(sacrum, z + 44 + wings - 0.35 * (y - center), 5), -182 - z, 4)
    _paint_bone(scene, region, sacrum, 1.8, 420)
    holes = ellipse(x - 24 + 10 * drop, y - center + 1, 5.0, 6.0) + 3 * (1 - np.cos((z + 58) * (2 * np.pi / 26)))
    region.paint(np.maximum(holes, -110 - z), 0.0)
    canal = np.maximum(ellipse(x, y - center + 12 - 6 * drop, 10.0, 5.0), -118 - z)
    region.paint(np.maximum(canal, z + 46), 5.0)


# --------------------------------------------------------------------------------------------------------- bone


def _bone_density(scene: Scene) -> float:
    """Density of bone relative to the average, falling with age."""
    return 1.2 - 0.5 * (scene.patient.age_years - 25) / 60


def _paint_bone(scene: Scene, region: Region, distance: Array, cortex_mm: float, cortex_hu: float = 700) -> None:
    """Paint a bone: a dense shell around trabeculae, both less dense with age."""
    density = _bone_density(scene)
    region.paint(distance, np.float32(cortex_hu * density), 0)
    region.paint(distance + cortex_mm, scene.textured(region, 170 * density, 24, 25))


def paint_chest_cage(scene: Scene) -> None:
    """Paint ribs, their cartilage, breastbone and shoulder blades."""
    region = scene.canvas.box((-185, -125, 55), (185, 125, 450))
    if region.hu.size == 0:
        return
    x, y, z = region.x, region.y, region.z
    outside = scene.cavity_mm[region.slices]
    angle = np.arctan2(np.abs(x), -(y + 12)) / np.float32(np.pi)  # 0 behind, 1 in front
    # A rib falls from the spine to the front, then its cartilage climbs to the breastbone.
    drop = 130 * np.clip((angle - 0.05) / 0.75, 0, 1) ** 1.15 - 90 * np.clip(angle - 0.8, 0, 1)
    height = z + drop
    order = np.arange(len(_RIB_HEIGHT))
    number = np.interp(height, _RIB_HEIGHT, order, left=-2, right=len(order) + 1).astype(np.float32)
    nearest = np.clip(np.rint(number), 0, len(order) - 1).astype(np.int32)
    away = np.abs(height - _RIB_HEIGHT[nearest].astype(np.float32)) * np.float32(0.85)
    # End of the bony part of each rib, and of its cartilage, as a share of the way around; 12th to 1st.
    bone_end = np.array([0.40, 0.56, 0.72, 0.76, 0.79, 0.81, 0.83, 0.84, 0.84, 0.84, 0.84, 0.82], dtype=np.float32)
    cartilage_end = np.array([0.40, 0.56, 0.80, 0.86, 0.90, 0.97, 1, 1, 1, 1, 1, 1], dtype=np.float32)
    arc = 110 * (angle - bone_end[nearest])
    rib = np.sqrt((away / 4.6) ** 2 + ((outside - 4.6) / 3.4) ** 2)
    rib = (rib - 1) * 3.8
    behind = -(y - spine_y(z)) - 6  # ribs meet the transverse processes, not the vertebral body
    rib = np.maximum(rib, np.where(np.abs(x) < 24, np.abs(behind) - 14, -FAR_MM))
    _paint_bone(scene, region, np.maximum(rib, arc), 1.8, 560)
    region.paint(np.maximum(np.maximum(rib, -arc), 110 * (angle - cartilage_end[nearest])), 105)

    plate = smooth_max(np.abs(outside - 6) - 4.8, np.abs(x) - 15 - 8 * np.clip((z - 360) / 20, 0, 1), 5)
    sternum = smooth_max(np.maximum(plate, 10 - y), np.maximum(238 - z, z - 392), 4)
    _paint_bone(scene, region, sternum, 1.6, 480)
    blade = np.maximum(np.abs(outside - 19 - 4 * np.sin(angle * 12)) - 2.6, np.abs(angle - 0.33) * 330 - 34)
    blade = smooth_max(blade, np.maximum(262 + 60 * np.abs(angle - 0.33) * 4 - z, z - 425), 4)
    blade = np.maximum(blade, scene.wall_mm[region.slices] + 6)
    _paint_bone(scene, region, blade, 1.8)


def paint_spine(scene: Scene) -> None:
    """Paint vertebrae with canal, arches and processes, the discs between them and the cord."""
    region = scene.canvas.box((-62, -140, -75), (62, 15, 450))
    if region.hu.size == 0:
        return
    x, z = region.x, region.z
    heights = _VERTEBRAE[:, 0]
    order = _by_height(heights, np.arange(len(heights)))  # smoothing keeps it monotonic
    level = _lookup(order, z)
    pitch = np.maximum(_lookup(np.gradient(order), z), np.float32(0.02))
    from_middle = (level - np.rint(level)) / pitch  # mm from the middle of the nearest body
    half_height = np.float32(0.5) / pitch - np.where(level < _FIRST_THORACIC - 0.5, np.float32(3.9), np.float32(2.0))
    y = region.y - spine_y(z)
    half_width, half_depth = _lookup(_SPINE_HALF_WIDTH, z), _lookup(_SPINE_HALF_DEPTH, z)
    end = np.maximum(_FIRST_LUMBAR - 0.55 - level, 0) / pitch
    tall = (from_middle / half_height) ** 2
    waist = half_width - 2.5 * (1 - np.clip(tall, 0, 1))
    column = np.maximum(ellipse(x, y, waist, half_depth), end)
    # The back of a body is flat.
    column = smooth_max(column, -y - half_depth * np.float32(0.82), 4)
    region.paint(column, np.float32(95), 0)
    density = _bone_density(scene)
    body = smooth_max(column, np.abs(from_middle) - half_height, 3)
    region.paint(body, np.float32(460 * density), 0)
    region.paint(body + 2.0, scene.textured(region, 150 * density, 22, 18))

    canal_y = -half_depth - 7.5
    lumbar = level < _FIRST_THORACIC - 0.5
    canal = np.maximum(ellipse(x, y - canal_y, 10.5, 8.0), end)
    ring = np.abs(canal - 2.0) - 2.3
    # Pedicles leave the upper half of a body; the laminae behind the canal hang lower, with gaps between them.
    pedicle = np.abs(from_middle - 4) - 6
    lamina = np.abs(from_middle + 5) - np.where(lumbar, np.float32(8), np.float32(6.5))
    arch = np.maximum(ring, np.where(y > canal_y, pedicle, lamina))
    facets = np.maximum(ellipse(np.abs(x) - 15, y - canal_y + 7, 6.0, 7.0), 5 - np.abs(from_middle))
    tip = np.where(lumbar, np.float32(40), np.float32(27))
    back_swing = np.where(lumbar, np.float32(-4), np.float32(-14))
    slant = np.where(lumbar, np.float32(0.1), np.float32(0.6))
    transverse = np.abs(y - canal_y - back_swing * np.abs(x) / 30 + 1) - 2.6 + 0.02 * np.abs(x)
    transverse = np.maximum(transverse, np.abs(x) - tip)
    transverse = np.maximum(transverse, np.abs(from_middle - 3) - 4.5 + 0.03 * np.abs(x))
    below = from_middle + 6 - slant * (y - canal_y + 8)
    length = np.where(lumbar, np.float32(36), np.float32(34))
    height = np.where(lumbar, np.float32(9), np.float32(6))
    spinous = np.maximum(np.abs(x) - 3.2, np.maximum(np.abs(below) - height, y - canal_y + 8))
    spinous = np.maximum(spinous, canal_y - y - length)
    posterior = smooth_min(smooth_min(arch, facets, 2), smooth_min(transverse, spinous, 2), 3)
    posterior = np.maximum(np.maximum(posterior, -canal), end)
    _paint_bone(scene, region, np.maximum(posterior, -column), 2.2, 520)
    region.paint(canal, scene.hu("fat") * 0.3 + 10, 0)
    region.paint(canal + 2.5, 28)
