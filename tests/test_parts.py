"""Parts that authors modelled, clusters held against them, and meshes cut at centroids."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.clustering import normalized_mutual_info_score

import pointcentroid as pc
from pointcentroid.errors import ReadError
from pointcentroid.evaluate.agreement import normalised_mutual_information
from pointcentroid.evaluate.assignments import measure
from pointcentroid.evaluate.clusters import Clusters, k_means, voronoi_cells
from pointcentroid.evaluate.correspondence import NamedShape, correspondence
from pointcentroid.geometry.axes import TO_Z_UP
from pointcentroid.geometry.surface import face_areas, face_neighbours, surface_points
from pointcentroid.io import read, read_parts
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.naming import labelled, point_parts
from pointcentroid.predict.predictor import Predictor
from pointcentroid.predict.split import face_centroids, write_split

from .conftest import EXAMPLES, ROOT
from .test_cli import run


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return pc.load("small", "cpu")


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three random variants of every class."""
    folder = tmp_path_factory.mktemp("variants")
    make_variants(folder, 3)
    return folder


def make_variants(folder: Path, count: int) -> None:
    command = [sys.executable, ROOT / "tools" / "make_examples.py", folder, "--variants", str(count)]
    subprocess.run(command, check=True, capture_output=True)


def triangles(vertices: np.ndarray, faces: np.ndarray) -> Counter[bytes]:
    """The triangles of a mesh, as the places of their corners in 32 bits, each as often as it is there."""
    return Counter(corners.tobytes() for corners in np.ascontiguousarray(vertices[faces].astype(np.float32)))


class TestReading:
    def test_variants_carry_their_parts(self, variants: Path, tmp_path: Path) -> None:
        numbers = json.loads((variants / "parts.json").read_text())
        assert len(numbers) == 10
        for name, parts in numbers.items():
            files = sorted((variants / name).iterdir())
            assert len(files) == 3
            for path in files:
                parted, content = read_parts(path), path.read_bytes()
                assert parted is not None
                assert sorted(parted.names, key=parts.index) == parted.names
                assert len(set(parted.names)) == len(parted.names)
                assert np.array_equal(np.unique(parted.parts), np.arange(len(parted.names)))
                tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
                extras = {node["name"]: node["extras"]["part"] for node in tree["nodes"] if "mesh" in node}
                assert extras == {part: parts.index(part) for part in parted.names}
                # Closed solids, all the right way round.
                mesh = trimesh.Trimesh(parted.shape.vertices, parted.shape.faces, process=False)
                assert mesh.is_volume, path
        sizes = [np.ptp(read(path).vertices, axis=0) for path in sorted((variants / "chair").iterdir())]
        assert not np.allclose(sizes[0], sizes[1])
        make_variants(tmp_path, 1)
        assert (tmp_path / "bed" / "bed_000.glb").read_bytes() == (variants / "bed" / "bed_000.glb").read_bytes()

    def test_variants_are_ignored_by_git(self) -> None:
        done = subprocess.run(["git", "check-ignore", "data/variants/chair/chair_000.glb"], cwd=ROOT, capture_output=True)
        if done.returncode == 128:
            pytest.skip("not a clone")
        assert done.returncode == 0

    def test_gltf_nodes_are_placed_and_named(self, tmp_path: Path) -> None:
        """Nodes with transforms, instances of one mesh, a mesh of two primitives, no name, the same name twice."""
        scene = trimesh.Scene()
        ball = trimesh.creation.icosphere(subdivisions=1)
        for x, name in ((0, "a"), (10, "b_1"), (20, "c")):
            place = trimesh.transformations.translation_matrix((x, 0, 0))
            scene.add_geometry(ball, node_name=name, geom_name="ball", transform=place)
        scene.export(tmp_path / "plain.glb")
        content = (tmp_path / "plain.glb").read_bytes()
        size = int.from_bytes(content[12:16], "little")
        tree = json.loads(content[20 : 20 + size])
        nodes = {node.get("name"): node for node in tree["nodes"]}
        tree["meshes"].append({"name": "double", "primitives": tree["meshes"][0]["primitives"] * 2})
        del nodes["c"]["name"]
        nodes["c"]["mesh"] = len(tree["meshes"]) - 1
        nodes["b_1"] |= {"name": "a", "mesh": nodes["a"]["mesh"]}
        text = json.dumps(tree).encode()
        text += b" " * (-len(text) % 4)
        rest = content[20 + size :]
        head = b"glTF" + b"".join(n.to_bytes(4, "little") for n in (2, 20 + len(text) + len(rest), len(text)))
        (tmp_path / "changed.glb").write_bytes(head + b"JSON" + text + rest)

        parted = read_parts(tmp_path / "changed.glb")
        assert parted is not None
        assert sorted(parted.names) == ["a", "a", "double"]
        shape = read(tmp_path / "changed.glb")
        assert np.array_equal(parted.shape.vertices, shape.vertices)
        assert np.array_equal(parted.shape.faces, shape.faces)
        middle = shape.vertices[shape.faces][:, :, 0].mean(axis=1)
        found = {}
        for number, name in enumerate(parted.names):
            mine = parted.parts == number
            found[round(middle[mine].mean())] = (name, int(mine.sum()))
        assert found == {0: ("a", 80), 10: ("a", 80), 20: ("double", 160)}

    def test_obj_groups_are_those_of_the_lines(self, tmp_path: Path) -> None:
        """Quads, materials that change inside a group, a group that is taken up again, vertices in between."""
        path = tmp_path / "groups.obj"
        rng = np.random.default_rng(0)
        lines, expected = [], Counter()
        steps = [("o one", None), ("g left", "m"), ("g left", "n"), ("g right", "m"), ("o two", None), ("g left", "m")]
        state = {"o": "", "g": ""}
        for step, (line, material) in enumerate(steps):
            lines += [f"v {x} {y} {z}" for x, y, z in rng.normal(size=(4, 3))]
            lines += [line, *([f"usemtl {material}"] if material else [])]
            state[line[0]] = line[2:]
            first = 4 * step + 1
            lines += [f"f {first} {first + 1} {first + 2}", f"f {first} {first + 1} {first + 2} {first + 3}"]
            expected["_".join(filter(None, state.values()))] += 3
        path.write_text("\n".join(lines) + "\n")
        parted = read_parts(path)
        assert parted is not None
        assert dict(zip(parted.names, np.bincount(parted.parts).tolist(), strict=True)) == expected
        shape = read(path)
        assert parted.shape.faces is not None
        assert shape.faces is not None
        assert triangles(parted.shape.vertices, parted.shape.faces) == triangles(shape.vertices, shape.faces)

    def test_real_files_keep_their_triangles(self, real_meshes: Path) -> None:
        found = {}
        for path in sorted(real_meshes.iterdir()):
            try:
                shape = read(path)
            except ReadError:
                continue
            if (parted := read_parts(path)) is not None:
                assert shape.faces is not None
                assert parted.shape.faces is not None
                assert len(parted.parts) == len(shape.faces)
                assert triangles(parted.shape.vertices, parted.shape.faces) == triangles(shape.vertices, shape.faces)
                found[path.name] = parted.names
        assert found["toilet__meshopt_toilet.glb"] == ["toilet(Clone)", "cover"]
        assert sorted(found["car__hatchback.obj"]) == ["Hatchback", "Wheel_Front_Left_", "Wheel_Front_Right", "Wheels_Rear"]
        assert all(name.endswith((".glb", ".obj")) for name in found)

    def test_what_has_no_parts_says_so(self, tmp_path: Path) -> None:
        assert read_parts(EXAMPLES / "chair.off") is None
        assert read_parts(EXAMPLES / "airplane.gltf") is None, "one node"
        (tmp_path / "bad.glb").write_bytes(b"glTF" + bytes(30))
        with pytest.raises(ReadError, match="version 0"):
            read_parts(tmp_path / "bad.glb")


class TestSurface:
    def test_points_lie_on_their_faces_as_often_as_the_area_says(self) -> None:
        mesh = trimesh.creation.box((1, 2, 3))
        assert face_areas(mesh.vertices, mesh.faces) == pytest.approx(mesh.area_faces)
        points, face = surface_points(mesh.vertices, mesh.faces, 6000, np.random.default_rng(0))
        away = ((points - mesh.triangles_center[face]) * mesh.face_normals[face]).sum(axis=1)
        assert np.abs(away).max() < 1e-12
        assert (np.abs(points) <= np.array([0.5, 1, 1.5]) + 1e-12).all()
        shares = np.bincount(face, minlength=12) / 6000
        assert shares == pytest.approx(mesh.area_faces / mesh.area, abs=0.02)
        halves = [points[face == number].mean(axis=0) for number in range(12)]
        assert halves == pytest.approx(mesh.triangles_center, abs=0.15)

    def test_neighbours_are_those_of_another_implementation(self) -> None:
        mesh = trimesh.creation.icosphere(subdivisions=2)
        loose = mesh.vertices[mesh.faces].reshape(-1, 3)  # every triangle with vertices of its own, as in an STL
        pairs, length = face_neighbours(loose, np.arange(len(loose)).reshape(-1, 3))
        order, expected = np.lexsort(pairs.T), np.sort(mesh.face_adjacency, axis=1)
        assert np.array_equal(pairs[order], expected[np.lexsort(expected.T)])
        ends = mesh.vertices[mesh.face_adjacency_edges[np.lexsort(expected.T)]]
        assert length[order] == pytest.approx(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1))


LABELS = arrays(np.int64, 40, elements=st.integers(-1, 4))


class TestFigures:
    @given(LABELS, LABELS)
    def test_mutual_information_is_that_of_another_implementation(self, one: np.ndarray, other: np.ndarray) -> None:
        expected = float(normalized_mutual_info_score(torch.from_numpy(one + 1), torch.from_numpy(other + 1)))
        if len(np.unique(one)) > 1 and len(np.unique(other)) > 1:  # that one says 0 of two equal labels that say nothing
            assert normalised_mutual_information(one, other) == pytest.approx(expected, abs=1e-5)
        renamed = np.array([7, 3, 9, 1, 0, 5])[one + 1]
        assert normalised_mutual_information(one, renamed) == pytest.approx(1)

    def test_cells_and_means_are_what_they_are_called(self) -> None:
        points = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
        cells, means = voronoi_cells(points, 9), k_means(points, 9)
        for clusters in (cells, means):
            distance = np.linalg.norm(points[:, None] - clusters.centres[None], axis=2)
            assert np.array_equal(clusters.hard, distance.argmin(axis=1))
            assert np.array_equal(clusters.shares.argmax(axis=1), clusters.hard)
            assert (clusters.shares.sum(axis=1) == 1).all()
        assert np.array_equal(cells.centres, points[:9])
        averages = [points[means.hard == number].mean(axis=0) for number in range(9)]
        assert means.centres == pytest.approx(np.stack(averages), abs=1e-5), "every centre is the mean of its points"
        assert k_means(np.zeros((5, 3)), 3).hard.tolist() == [0] * 5

    def test_points_are_of_the_part_they_lie_on(self, predictor: Predictor, variants: Path) -> None:
        path = variants / "bed" / "bed_000.glb"
        seen, parted = predictor.explain(path), read_parts(path)
        assert parted is not None
        assert parted.shape.faces is not None
        there = seen.points @ np.linalg.inv(seen.transform)[:3, :3].T + np.linalg.inv(seen.transform)[:3, 3]
        part, wrong = point_parts(seen, parted), 0
        for number in range(len(parted.names)):
            faces = parted.shape.faces[parted.parts == number]
            mine = there[part == number]
            # Parts of a bed are boxes, or several: a point on a part lies in its box.
            low, high = parted.shape.vertices[faces].min(axis=(0, 1)), parted.shape.vertices[faces].max(axis=(0, 1))
            wrong += int(((mine < low - 0.01) | (mine > high + 0.01)).any(axis=1).sum())
        assert wrong / len(there) < 0.02
        # Parts that are clusters agree wholly; those figures are the files' own.
        figures = measure(seen, parts=seen.stages[-1].hard)
        assert [f.agreement for f in figures if (f.stage, f.clusters) == (len(seen.stages), "net")] == [pytest.approx(1)]
        assert all(0 < (f.agreement or 0) < 1 for f in figures if f.clusters != "net")

    def test_correspondence_counts_what_is_named_rightly(self) -> None:
        """Two clouds of four corners: of the other, two corners have swapped their numbers, and one has a new name.

        By feature, corners 0 and 1 are called b (wrong, right), and corners 2 and 3 are called c (right, wrong).
        """
        corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], dtype=np.float32)
        points = np.repeat(corners, 5, axis=0)

        def shape(order: list[int], names: str, features: list[int]) -> NamedShape:
            hard = np.repeat(order, 5)
            net = Clusters("net", np.eye(4)[hard], hard, corners)
            return NamedShape(points, np.repeat(list(names), 5), hard, np.eye(4)[features], [net])

        one, two = shape([0, 1, 2, 3], "abcc", [0, 1, 2, 3]), shape([1, 0, 2, 3], "abcd", [1, 1, 2, 2])
        rows = {(row.clusters, row.matched): row for row in correspondence([one], [one, two])}
        shares = {way: row.rightly for way, row in rows.items()}
        assert shares == {
            ("net", "number"): 0.25,
            ("net", "position"): 0.75,
            ("net", "points"): 0.75,
            ("net", "feature"): 0.5,
            ("points", "position"): 0.75,
            ("nothing", "majority"): 0.25,
            ("nothing", "possible"): 0.75,
        }
        assert all((row.pairs, row.lowest, row.complete) == (1, row.rightly, row.rightly) for row in rows.values())
        # The other one has more names: of its pair alone is `complete`.
        both = {(row.clusters, row.matched): row for row in correspondence([one, two], [one, two])}
        assert {row.pairs for row in both.values()} == {2}
        assert both["nothing", "possible"].complete == 1.0
        assert both["net", "number"].complete == 0.25
        for way, row in both.items():
            assert row.rightly == pytest.approx((row.complete + rows[way].rightly) / 2)
            assert row.lowest == min(row.complete, rows[way].rightly)
        assert any(row.lowest < row.rightly for row in both.values())


class TestSplit:
    def test_every_real_mesh_is_cut_and_no_face_is_lost_or_doubled(
        self, predictor: Predictor, real_meshes: Path, tmp_path: Path
    ) -> None:
        cut = 0
        for path in sorted(real_meshes.iterdir()):
            try:
                seen = predictor.explain(path)
            except ReadError:
                continue
            if seen.faces is None:
                with pytest.raises(ReadError, match="is a point cloud, without faces to cut"):
                    write_split(seen, seen.prediction, tmp_path, path.name)
                assert not list(tmp_path.glob(f"{path.name}*"))
                continue
            glb, text = write_split(seen, seen.prediction, tmp_path, path.name)
            told = {part["name"]: part for part in json.loads(text.read_text())["parts"]}
            assert len(told) == len(seen.stages[-1].positions)
            found: Counter[bytes] = Counter()
            scene = trimesh.load_scene(glb, process=False)
            for node in scene.graph.nodes_geometry:
                mesh = scene.geometry[scene.graph[node][1]]
                assert isinstance(mesh, trimesh.Trimesh)
                assert len(mesh.faces) == told[node]["faces"]
                assert told[node]["area"] == pytest.approx(mesh.area, rel=1e-3)
                assert mesh.bounds == pytest.approx(np.array(told[node]["box"]), rel=1e-5, abs=1e-5 * mesh.scale)
                found += triangles(mesh.vertices, mesh.faces)
                upright = scene.graph[node][0][:3, :3] @ seen.prediction.turn.T
                np.testing.assert_allclose(upright, TO_Z_UP["y"].T, atol=1e-6)
            assert found == triangles(seen.vertices, seen.faces), path.name
            shown = {name for name, part in told.items() if part["faces"]}
            assert shown == set(scene.graph.nodes_geometry)
            assert all(part["box"] is None and part["area"] == 0 for name, part in told.items() if name not in shown)
            cut += 1
        assert cut >= 30

    @pytest.mark.parametrize("name", ["chair.off", "bottle.stl", "airplane.gltf"])
    def test_a_cut_mesh_stands_as_gltf_wants_it(self, predictor: Predictor, tmp_path: Path, name: str) -> None:
        seen = predictor.explain(EXAMPLES / name)
        glb, _ = write_split(seen, seen.prediction, tmp_path, name)
        again = predictor(glb)
        assert again.label == seen.prediction.label
        assert again.confidence == pytest.approx(seen.prediction.confidence, abs=0.05)

    def test_parts_may_have_any_name_and_lie_anywhere(self, tmp_path: Path) -> None:
        """Such as those of the frames that trees of nodes begin with."""
        boxes = [trimesh.creation.box((1, 1, 0.1)), trimesh.creation.box((0.1, 0.1, 1)).apply_translation((0, 0, -0.5))]
        lines, first = [], 1
        for name, box in zip(("world", "shape"), (box.subdivide() for box in boxes), strict=True):
            moved = box.vertices + np.array((5e5, 4.5e6, 100))
            lines += [f"o {name}", *(f"v {x} {y} {z}" for x, y, z in moved.tolist())]
            lines += ["f {} {} {}".format(*(corners + first)) for corners in box.faces]
            first += len(moved)
        (tmp_path / "far.obj").write_text("\n".join(lines) + "\n")
        out = tmp_path / "out"
        done = run(
            "assignments", tmp_path / "far.obj", "--up", "z", "--split", out, "--names", tmp_path / "far.obj", "--save", out
        )
        assert done.returncode == 0, done.stderr
        shape, parted = read(tmp_path / "far.obj"), read_parts(out / "far.obj-parts.glb")
        assert parted is not None
        assert {"world", "shape"} <= {name.split(" ")[0] for name in parted.names}
        z_up = parted.shape.vertices @ TO_Z_UP["y"].T
        used = np.unique(parted.shape.faces)
        for bound in (np.min, np.max):
            assert bound(z_up[used], axis=0) == pytest.approx(bound(shape.vertices, axis=0), abs=1e-3)
        points = read(out / "far.obj-stage1.ply").vertices
        with np.load(out / "far.obj.npz") as saved:
            np.testing.assert_array_equal(points, saved["points"])

    def test_faces_go_where_most_of_their_points_go(self) -> None:
        """A fine mesh is cut nearly where the middles of its faces say, and more smoothly."""
        mesh = trimesh.load_mesh(EXAMPLES / "chair.off").subdivide().subdivide().subdivide()
        seen = pc.load("parts", "cpu").explain(mesh, up="z")
        chosen = face_centroids(seen)
        middle = mesh.triangles_center @ seen.transform[:3, :3].T + seen.transform[:3, 3]
        nearest = np.linalg.norm(middle[:, None] - seen.points[None], axis=2).argmin(axis=1)
        unsmoothed = seen.stages[-1].hard[nearest]
        weight = mesh.area_faces / mesh.area
        assert weight[chosen == unsmoothed].sum() > 0.9

        def boundary(labels: np.ndarray) -> float:
            pairs, length = face_neighbours(mesh.vertices, mesh.faces)
            return float(length[labels[pairs[:, 0]] != labels[pairs[:, 1]]].sum())

        assert boundary(chosen) < 0.9 * boundary(unsmoothed), "boundaries are smoother than those of the nearest points"
        pieces = seen.split()
        assert sum(len(piece.faces) for piece in pieces.values()) == len(mesh.faces)
        assert list(pieces) == [f"centroid {number}" for number in np.unique(chosen)]

    def test_volumes_are_of_closed_pieces_and_far_meshes_keep_their_digits(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        """Boxes far from the origin, a centroid each, and one box open."""
        corners = np.array([(x, y, z) for x in (0, 9) for y in (0, 7) for z in (0, 5)]) + np.array((3e6 + 0.3, -2e6, 0))
        boxes = trimesh.util.concatenate([trimesh.creation.box((1, 1, 1)).apply_translation(at) for at in corners])
        boxes.update_faces(np.arange(len(boxes.faces)) > 0)
        seen = predictor.explain(boxes, up="z")
        there = (seen.points - seen.transform[:3, 3]) @ np.linalg.inv(seen.transform[:3, :3]).T
        box = np.linalg.norm(there[:, None] - corners[None], axis=2).argmin(axis=1)
        glb, text = write_split(in_clusters(seen, box), seen.prediction, tmp_path, "boxes")
        told = json.loads(text.read_text())["parts"]
        empty = len(seen.stages[-1].positions) - 8
        assert [part["faces"] for part in told] == [11, *[12] * 7, *[0] * empty]
        assert [part["volume"] for part in told] == [None, *[pytest.approx(1, rel=1e-6)] * 7, *[None] * empty]
        z_up = read(glb).vertices @ TO_Z_UP["y"].T
        assert z_up.min(axis=0) == pytest.approx(boxes.bounds[0], abs=1e-5)
        assert z_up.max(axis=0) == pytest.approx(boxes.bounds[1], abs=1e-5)

    @pytest.mark.parametrize("size", [1e-9, 1.0, 1e20])
    def test_volumes_are_those_of_shapes_of_any_size(self, predictor: Predictor, tmp_path: Path, size: float) -> None:
        sphere = trimesh.creation.icosphere(subdivisions=2)
        ball = trimesh.Trimesh(sphere.vertices * size, sphere.faces, process=False)
        seen = predictor.explain(ball, up="z")
        whole = in_clusters(seen, np.zeros(len(seen.points), np.int64))
        _, text = write_split(whole, seen.prediction, tmp_path, "ball")
        assert json.loads(text.read_text())["parts"][0]["volume"] == pytest.approx(sphere.volume * size**3, rel=1e-6)

    def test_what_no_glb_can_hold_is_refused(self, predictor: Predictor, tmp_path: Path) -> None:
        sphere = trimesh.creation.icosphere(subdivisions=2)
        ball = trimesh.Trimesh(sphere.vertices * 1e100, sphere.faces, process=False)
        seen = predictor.explain(ball, up="z")
        with pytest.raises(ReadError, match=r"a coordinate of 1e\+100, more than a GLB can hold"):
            write_split(seen, seen.prediction, tmp_path, "ball")
        assert not list(tmp_path.iterdir())

    def test_names_are_lent(self, predictor: Predictor, variants: Path) -> None:
        """Where parts are clusters, an example lends itself the names they have, and pieces are the parts."""
        path = variants / "airplane" / "airplane_000.glb"
        parted = read_parts(path)
        assert parted is not None
        seen = predictor.explain(path)
        pieces = in_clusters(seen, point_parts(seen, parted)).split(labelled(seen, parted))
        assert set(pieces) <= set(parted.names)
        faces = zip(corners_of(parted.shape), parted.parts, strict=True)
        own = {corners.tobytes(): parted.names[part] for corners, part in faces}
        rightly = total = 0.0
        for name, piece in pieces.items():
            for corners, area in zip(corners_of(piece), piece.area_faces, strict=True):
                rightly += area * (own[corners.tobytes()] == name)
                total += area
        assert rightly > 0.9 * total
        assert all(name.startswith("centroid ") for name in seen.split())

    def test_the_command_splits_and_lends_names(self, variants: Path, tmp_path: Path) -> None:
        shutil.copytree(variants / "chair", tmp_path / "chairs")
        shutil.copy(EXAMPLES / "laptop.npy", tmp_path / "chairs")
        done = run(
            "assignments", tmp_path / "chairs", "--resamplings", 0, "--format", "json", "--split", tmp_path / "out",
            "--names", tmp_path / "chairs" / "chair_000.glb",
        )  # fmt: skip
        assert done.returncode == 1
        assert "laptop.npy: is a point cloud" in done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(rows) == 4 * 6 + 1  # a cloud is measured, too, but not cut
        assert "error" in rows.pop()
        chairs = [row for row in rows if row["file"].endswith(".glb")]
        assert len(chairs) == 3 * 6
        assert all(0 < row["agreement"] < 1 for row in chairs)
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == [f"chair_00{n}.glb-parts.{kind}" for n in range(3) for kind in ("glb", "json")]
        parted = read_parts(tmp_path / "out" / "chair_001.glb-parts.glb")
        assert parted is not None
        assert "seat" in parted.names

        # Means of those rows, and correspondence of the same files.
        done = run("assignments", tmp_path / "chairs", "--resamplings", 0, "--format", "json", "--mean")
        means = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["files"] for row in means] == [4] * 6
        assert "agreement is the mean of the 3 of 4 files that have it" in done.stderr
        for mean in means:
            same = [row for row in chairs if (row["stage"], row["clusters"]) == (mean["stage"], mean["clusters"])]
            assert mean["agreement"] == pytest.approx(np.mean([row["agreement"] for row in same]))
        done = run("assignments", variants / "chair", variants / "lamp", "--format", "json", "--correspondence")
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert {(Path(row["folder"]).name, row["pairs"]) for row in rows} == {("chair", 6), ("lamp", 6)}
        for folder in ("chair", "lamp"):
            most = max(row["rightly"] for row in rows if Path(row["folder"]).name == folder)
            (bound,) = [r for r in rows if Path(r["folder"]).name == folder and r["matched"] == "possible"]
            assert bound["rightly"] == most <= 1
        both = ("assignments", variants / "chair", variants / "lamp", "--format", "json", "--correspondence", "--mean")
        means = [json.loads(line) for line in run(*both).stdout.splitlines()]
        assert len(means) == len(rows) / 2
        for mean in means:
            same = [r for r in rows if (r["clusters"], r["matched"]) == (mean["clusters"], mean["matched"])]
            assert (mean["folders"], mean["pairs"], mean["lowest"]) == (2, 12, min(row["lowest"] for row in same))
            assert mean["complete"] == pytest.approx(np.mean([row["complete"] for row in same]))

    def test_an_example_among_the_files_names_the_others_only(self, variants: Path) -> None:
        folder = variants / "chair"
        example = folder / ".." / "chair" / "chair_000.glb"  # the same file by another path
        done = run("assignments", folder, "--correspondence", "--names", example, "--json")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert {row["pairs"] for row in rows} == {2}, "of three files"
        assert "names are lent" not in done.stderr

    def test_names_from_another_kind_of_thing_are_remarked_on(self, variants: Path, tmp_path: Path) -> None:
        files, lent = (variants / "bed" / "bed_000.glb", EXAMPLES / "chair.off"), variants / "chair" / "chair_000.glb"
        for command in (("assignments", "--split", tmp_path, "--resamplings", 0), ("view", "--html", tmp_path / "a.html")):
            done = run(*command, *files, "--names", lent)
            assert done.returncode == 0, done.stderr
            assert done.stderr.count("names are lent") == 1
            assert f"{files[0]}: bed; names are lent by {lent}: chair, and may mean nothing here" in done.stderr

    def test_pieces_of_a_folder_share_colours(self, variants: Path, tmp_path: Path) -> None:
        done = run("assignments", variants / "chair", "--split", tmp_path, "--resamplings", 0)
        assert done.returncode == 0, done.stderr
        first, *others = (trimesh.load_scene(path) for path in sorted(tmp_path.glob("*.glb")))
        alone = run("assignments", variants / "chair" / "chair_001.glb", "--split", tmp_path / "1", "--resamplings", 0)
        assert alone.returncode == 0, alone.stderr

        def tints(scene: trimesh.Scene) -> set[tuple[int, ...]]:
            return {tuple(mesh.visual.vertex_colors[0, :3].tolist()) for mesh in scene.geometry.values()}  # type: ignore[attr-defined]

        by_itself = trimesh.load_scene(next((tmp_path / "1").glob("*.glb")))
        assert len(tints(first) & tints(others[0])) > len(tints(first) & tints(by_itself)), "of parts that are the same"
        assert tints(others[0]) != tints(by_itself)

    def test_wrong_usage_is_one_line(self, variants: Path, tmp_path: Path) -> None:
        lone = run("assignments", EXAMPLES / "chair.off", "--names", variants / "chair" / "chair_000.glb")
        assert lone.returncode == 2
        assert "--split or --correspondence" in lone.stderr
        done = run("assignments", EXAMPLES / "chair.off", "--split", tmp_path / "out", "--names", EXAMPLES / "chair.off")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith("glTF nodes, objects of OBJ or 3MF, two at least")
        assert not (tmp_path / "out").exists()


def in_clusters(seen: Explanation, hard: np.ndarray) -> Explanation:
    """The same, with clusters of one's own in the last stage."""
    last = seen.stages[-1]
    composed = np.eye(len(last.positions), dtype=np.float32)[hard]
    return dataclasses.replace(seen, stages=[*seen.stages[:-1], dataclasses.replace(last, composed=composed)])


def corners_of(mesh: object) -> np.ndarray:
    """(F, 3, 3) places of the corners of a mesh's triangles."""
    return np.ascontiguousarray(mesh.vertices[mesh.faces], dtype=np.float64)  # type: ignore[attr-defined]
