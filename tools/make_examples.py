"""Make the shapes of data/examples: parametric objects of ModelNet40 classes, one or more in every format we read.

    python tools/make_examples.py [FOLDER]
    python tools/make_examples.py FOLDER --variants 50 [--seed 0]

LAS and LAZ go to a subfolder: reading them needs an extra. With `--variants`, random variants of ten classes are written
instead, with their parts: see `write_variants`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import trimesh
import trimesh.exchange.gltf
import trimesh.exchange.ply
from pypcd4.pypcd4 import Encoding, PointCloud
from shapes import Mesh, block, hull, profile, rod
from trimesh.creation import annulus, capsule, cone, cylinder, torus
from variants import PART_NAMES, variants

from pointcentroid.geometry.sampling import sample_surface

DATA = Path(__file__).parent.parent / "data"


def legs(width: float, depth: float, height: float, thickness: float) -> list[Mesh]:
    """Four square legs under the corners of a rectangle."""
    corners = [(x * (width - thickness) / 2, y * (depth - thickness) / 2) for x in (-1, 1) for y in (-1, 1)]
    return [block((thickness, thickness, height), (x, y, height / 2)) for x, y in corners]


def airplane() -> list[Mesh]:
    """Fuselage along y, swept wings, tail."""
    body = capsule(height=4.4, radius=0.3, count=(24, 24))
    body.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    body.apply_translation((0, 2.2, 0))
    wings = [_wing(side * 2.6, 0.9, -0.7, 0.0) for side in (-1, 1)]
    tail = [_wing(side * 0.9, 0.45, -0.35, 2.0) for side in (-1, 1)]
    fin = hull([(x, y, z) for x in (-0.03, 0.03) for y, z in ((1.6, 0.2), (2.2, 0.2), (2.15, 1.0), (2.4, 1.0))])
    engines = [rod(0.13, (side * 1.0, -0.55, -0.2), (side * 1.0, 0.15, -0.2)) for side in (-1, 1)]
    return [body, *wings, *tail, fin, *engines]


def _wing(span: float, chord: float, sweep: float, at: float) -> Mesh:
    """A thin tapered plate from the fuselage outwards; a negative sweep leans back."""
    root = [(0.0, at - chord / 2), (0.0, at + chord / 2)]
    tip = [(span, at - chord / 6 - sweep), (span, at + chord / 6 - sweep)]
    return hull([(x, y, z) for x, y in root + tip for z in (-0.04, 0.04)])


def bed() -> list[Mesh]:
    """Frame, mattress, headboard, two pillows."""
    return [
        block((1.6, 2.1, 0.25), (0, 0, 0.25)),
        block((1.55, 2.0, 0.25), (0, 0, 0.5)),
        block((1.7, 0.08, 1.1), (0, 1.05, 0.55)),
        block((1.7, 0.08, 0.6), (0, -1.05, 0.3)),
        block((0.6, 0.4, 0.12), (-0.38, 0.75, 0.67)),
        block((0.6, 0.4, 0.12), (0.38, 0.75, 0.67)),
    ]


def bookshelf() -> list[Mesh]:
    """Sides, back, five boards."""
    boards = [block((0.9, 0.3, 0.03), (0, 0, z)) for z in np.linspace(0.05, 1.95, 6)]
    sides = [block((0.03, 0.3, 2.0), (side * 0.45, 0, 1.0)) for side in (-1, 1)]
    return [*boards, *sides, block((0.9, 0.02, 2.0), (0, 0.15, 1.0))]


def bottle() -> list[Mesh]:
    """A wine bottle."""
    return [
        profile((0, 0), (0.37, 0), (0.38, 0.05), (0.38, 1.7), (0.3, 2.0), (0.14, 2.3), (0.14, 2.9), (0.16, 3.0), (0, 3.0))
    ]


def bowl() -> list[Mesh]:
    """A hemisphere with a foot, open at the top."""
    angles = np.linspace(0.25, np.pi / 2, 16)
    outer = [(float(np.sin(a)), float(1 - np.cos(a))) for a in angles]
    inner = [(0.94 * r, 0.06 + 0.94 * z) for r, z in reversed(outer)]
    return [profile((0, 0), (0.25, 0), *outer, *inner, (0, 0.09))]


def chair() -> list[Mesh]:
    """Seat, four legs, a back of two posts and slats."""
    posts = [block((0.04, 0.04, 0.55), (side * 0.21, 0.21, 0.72)) for side in (-1, 1)]
    slats = [block((0.42, 0.02, 0.09), (0, 0.21, z)) for z in (0.6, 0.76, 0.92)]
    return [block((0.46, 0.46, 0.04), (0, 0, 0.45)), *legs(0.46, 0.46, 0.45, 0.04), *posts, *slats]


def traffic_cone() -> list[Mesh]:
    """A cone on a square plate."""
    tip = cone(0.45, 1.4, sections=48)
    return [tip, block((1.0, 1.0, 0.05), (0, 0, 0.0))]


def cup() -> list[Mesh]:
    """A mug: an open wall and a handle."""
    wall = profile((0, 0), (0.4, 0), (0.42, 0.1), (0.42, 1.0), (0.38, 1.0), (0.38, 0.06), (0, 0.06))
    handle = torus(0.26, 0.05, major_sections=32, minor_sections=12)
    handle.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    handle.apply_translation((0.5, 0, 0.5))
    return [wall, handle]


def door() -> list[Mesh]:
    """A leaf with panels and a knob, in its frame."""
    panels = [block((0.3, 0.02, 0.75), (x, side * 0.03, z)) for x in (-0.2, 0.2) for z in (0.5, 1.45) for side in (-1, 1)]
    frame = [block((0.06, 0.12, 2.1), (side * 0.48, 0, 1.05)) for side in (-1, 1)]
    return [block((0.9, 0.05, 2.05), (0, 0, 1.02)), *panels, *frame, block((1.02, 0.12, 0.06), (0, 0, 2.1))]


def lamp() -> list[Mesh]:
    """A floor lamp: foot, pole, shade."""
    shade = profile((0.32, 1.45), (0.2, 1.85), (0.19, 1.85), (0.31, 1.45), (0.32, 1.45))
    return [cylinder(0.22, 0.04, sections=48), rod(0.02, (0, 0, 0), (0, 0, 1.6)), shade]


def laptop() -> list[Mesh]:
    """Base with keys, and a lid leaning back."""
    lid = block((1.4, 0.03, 0.95), (0, 0, 0.475))
    lid.apply_transform(trimesh.transformations.rotation_matrix(-0.3, (1, 0, 0)))
    lid.apply_translation((0, 0.48, 0.02))
    keys = block((1.2, 0.45, 0.02), (0, 0.1, 0.04))
    return [block((1.4, 0.95, 0.06), (0, 0, 0)), keys, lid]


def monitor() -> list[Mesh]:
    """Screen, neck, foot."""
    return [
        block((1.2, 0.06, 0.75), (0, 0, 0.85)),
        block((0.5, 0.1, 0.4), (0, 0.07, 0.85)),
        rod(0.05, (0, 0.08, 0.05), (0, 0.08, 0.8)),
        block((0.5, 0.35, 0.04), (0, 0.06, 0.02)),
    ]


def sofa() -> list[Mesh]:
    """Base, back, arms, three cushions."""
    cushions = [block((0.58, 0.62, 0.14), (x, -0.06, 0.47)) for x in (-0.6, 0, 0.6)]
    arms = [block((0.2, 0.9, 0.62), (side * 1.0, 0, 0.31)) for side in (-1, 1)]
    return [block((1.9, 0.9, 0.4), (0, 0, 0.2)), block((2.2, 0.22, 0.85), (0, 0.4, 0.43)), *arms, *cushions]


def stool() -> list[Mesh]:
    """A round seat on four splayed legs with a ring."""
    ends = [(x, y) for x in (-1, 1) for y in (-1, 1)]
    splayed = [rod(0.02, (0.12 * x, 0.12 * y, 0.7), (0.2 * x, 0.2 * y, 0)) for x, y in ends]
    ring = annulus(0.22, 0.24, 0.02, sections=48)
    ring.apply_translation((0, 0, 0.25))
    seat = cylinder(0.2, 0.05, sections=48)
    seat.apply_translation((0, 0, 0.7))
    return [seat, *splayed, ring]


def table() -> list[Mesh]:
    """A top and four legs."""
    return [block((1.6, 0.9, 0.05), (0, 0, 0.73)), *legs(1.5, 0.8, 0.72, 0.07)]


def vase() -> list[Mesh]:
    """A bellied vase with a narrow neck, open at the top."""
    heights = np.linspace(0, 2.2, 24)
    outer = [(float(0.3 + 0.35 * np.sin(h * 1.35) ** 2 * (h < 2.0) + 0.12 * (h > 1.9)), float(h)) for h in heights]
    inner = [(0.9 * r, h) for r, h in reversed(outer[1:])]
    return [profile((0, 0), *outer, *inner)]


_Y_UP = trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0))


def _joined(parts: list[Mesh]) -> Mesh:
    """One mesh of all parts, with coordinates of five decimals so that text files stay short."""
    vertices = np.concatenate([np.round(part.vertices, 5) for part in parts])
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])
    return trimesh.Trimesh(vertices, faces, process=False)


def _save(parts: list[Mesh], path: Path) -> None:
    """Write a mesh file; glTF is y-up by its standard."""
    mesh = _joined(parts)
    kind = path.suffix[1:]
    if kind in ("glb", "gltf"):
        mesh.apply_transform(_Y_UP)
    if kind == "gltf":
        files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh), embed_buffers=True)
        path.write_bytes(files["model.gltf"])
    elif kind == "npz":
        np.savez_compressed(path, vertices=mesh.vertices.astype(np.float32), faces=mesh.faces.astype(np.int32))
    else:
        mesh.export(path)


def _save_ascii_stl(parts: list[Mesh], path: Path) -> None:
    _joined(parts).export(path, file_type="stl_ascii")


def _save_ascii_ply(parts: list[Mesh], path: Path) -> None:
    path.write_bytes(trimesh.exchange.ply.export_ply(_joined(parts), encoding="ascii"))


def _points(parts: list[Mesh], count: int) -> np.ndarray:
    """(count, 3) float32 surface samples, with the size and the place of a thing in a room, in metres."""
    mesh = _joined(parts)
    return sample_surface(mesh.vertices, mesh.faces, count, np.random.default_rng(0)).astype(np.float32) * 2


def _save_points(parts: list[Mesh], path: Path) -> None:
    points = _points(parts, 1500)
    kind = path.suffix[1:]
    if kind == "npy":
        np.save(path, points)
    elif kind == "csv":
        np.savetxt(path, points, fmt="%.4f", delimiter=",", header="x,y,z", comments="")
    elif kind == "pts":
        np.savetxt(path, points, fmt="%.4f", header=str(len(points)), comments="")
    elif kind in ("las", "laz"):
        cloud = laspy.create(point_format=0, file_version="1.2")
        cloud.header.scales = np.full(3, 1e-4)
        cloud.x, cloud.y, cloud.z = points.T.astype(np.float64)
        cloud.write(str(path))
    else:
        np.savetxt(path, points, fmt="%.4f")


def _save_pcd(encoding: Encoding) -> Callable[[list[Mesh], Path], None]:
    return lambda parts, path: PointCloud.from_xyz_points(_points(parts, 1500)).save(path, encoding=encoding)


EXAMPLES: list[tuple[str, Callable[[], list[Mesh]], Callable[[list[Mesh], Path], None]]] = [
    ("chair.off", chair, _save),
    ("table.obj", table, _save),
    ("bed_ascii.ply", bed, _save_ascii_ply),
    ("vase.ply", vase, _save),
    ("door_ascii.stl", door, _save_ascii_stl),
    ("bottle.stl", bottle, _save),
    ("lamp.glb", lamp, _save),
    ("airplane.gltf", airplane, _save),
    ("cup.3mf", cup, _save),
    ("bowl.npz", bowl, _save),
    ("monitor.xyz", monitor, _save_points),
    ("bookshelf.txt", bookshelf, _save_points),
    ("stool.csv", stool, _save_points),
    ("cone.pts", traffic_cone, _save_points),
    ("laptop.npy", laptop, _save_points),
    ("sofa_ascii.pcd", sofa, _save_pcd(Encoding.ASCII)),
    ("chair_binary.pcd", chair, _save_pcd(Encoding.BINARY)),
    ("airplane_compressed.pcd", airplane, _save_pcd(Encoding.BINARY_COMPRESSED)),
    ("las/bed.las", bed, _save_points),
    ("las/table.laz", table, _save_points),
]


def write_variants(folder: Path, count: int, seed: int) -> None:
    """Write random variants of every class: `FOLDER/chair/chair_000.glb` ..., and `FOLDER/parts.json`.

    Each part is a named node, whose extras hold its number: its place in the list of its class in `parts.json`.

    Args:
        folder: where to.
        count: variants of each class.
        seed: of the randomness.
    """
    for name, number, parts in variants(count, seed):
        scene = trimesh.Scene()
        for part, solids in parts.items():
            mesh = _joined(solids)
            mesh.apply_transform(_Y_UP)
            label = {"part": PART_NAMES[name].index(part)}
            scene.add_geometry(mesh, node_name=part, geom_name=part, metadata=label)
        path = folder / name / f"{name}_{number:03d}.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene.export(path)
    (folder / "parts.json").write_text(json.dumps(PART_NAMES, indent=1) + "\n")


def main() -> None:
    """Write every example, or random variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where to; data/variants, say, is ignored by git")
    parser.add_argument("--variants", type=int, default=0, metavar="N", help="write so many random variants of each class")
    parser.add_argument("--seed", type=int, default=0, help="of the variants")
    arguments = parser.parse_args()
    if arguments.variants:
        write_variants(arguments.folder or DATA / "variants", arguments.variants, arguments.seed)
        return
    folder = arguments.folder or DATA / "examples"
    for name, make, save in EXAMPLES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(make(), path)
        print(f"{path}  {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
