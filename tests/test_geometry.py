"""Sampling, normalisation, farthest points, neighbours: invariances, bounds, and equality with slow references."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.geometry import nearest as nearest_module
from pointcentroid.geometry import neighbours as neighbours_module
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES, up_name
from pointcentroid.geometry.box import angle, box_frame
from pointcentroid.geometry.fps import farthest_first, farthest_order, farthest_point_sampling
from pointcentroid.geometry.nearest import nested_neighbours
from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours
from pointcentroid.geometry.sampling import filled, normalise, preprocess, sample_surface, thin
from pointcentroid.geometry.surface import face_neighbours, surface_points

seeds = st.integers(0, 2**32 - 1)


def cloud(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def slow_fps(points: np.ndarray, count: int, first: int) -> list[int]:
    picked = [first]
    while len(picked) < count:
        nearest = [min(float(np.sum((p - points[k]) ** 2)) for k in picked) for p in points]
        picked.append(int(np.argmax(nearest)))
    return picked


class TestFarthestPointSampling:
    @given(seeds)
    def test_equals_a_slow_reference(self, seed: int) -> None:
        points = cloud(seed, 2, 40, 3)
        picked = farthest_point_sampling(points, 12)
        for row in range(2):
            mean = points[row].mean(dim=0)
            first = int((points[row] - mean).square().sum(dim=1).argmax())
            assert picked[row].tolist() == slow_fps(points[row].double().numpy(), 12, first)

    @given(seeds, st.integers(1, 60), st.integers(1, 60))
    def test_order_is_nested(self, seed: int, few: int, many: int) -> None:
        few, many = sorted((few, many))
        points = cloud(seed, 1, 60, 3)
        assert torch.equal(farthest_point_sampling(points, few), farthest_point_sampling(points, many)[:, :few])

    @given(seeds, st.integers(2, 50))
    def test_picks_are_as_far_apart_as_they_cover(self, seed: int, count: int) -> None:
        # Gonzalez: no two picks are nearer to each other than the radius they cover the cloud with. Any other choice of
        # as many centres must then put two of (picks + the farthest point) in one ball, so its radius is at least half.
        points = cloud(seed, 1, 80, 3).double()
        picks = points[0, farthest_point_sampling(points, count)[0]]
        covering = torch.cdist(points[0], picks).amin(dim=1).max()
        apart = torch.cdist(picks, picks).fill_diagonal_(torch.inf).min()
        assert apart >= covering * (1 - 1e-9)

    @given(seeds)
    def test_does_not_depend_on_the_order_of_points(self, seed: int) -> None:
        points = cloud(seed, 1, 50, 3)
        shuffled = points[:, torch.randperm(50, generator=torch.Generator().manual_seed(seed % 1000))]
        a = gather_points(points, farthest_point_sampling(points, 20))
        b = gather_points(shuffled, farthest_point_sampling(shuffled, 20))
        assert torch.equal(a, b)

    def test_batches_do_not_mix(self) -> None:
        points = cloud(0, 5, 30, 3)
        together = farthest_point_sampling(points, 10)
        alone = torch.cat([farthest_point_sampling(p.unsqueeze(0), 10) for p in points])
        assert torch.equal(together, alone)

    def test_random_starts_come_from_the_generator(self) -> None:
        points = cloud(0, 64, 30, 3)

        def starts(seed: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            return farthest_point_sampling(points, 2, start="random", generator=generator)[:, 0]

        assert torch.equal(starts(1), starts(1))
        assert not torch.equal(starts(1), starts(2))
        assert farthest_point_sampling(points, 2, start=7)[:, 0].tolist() == [7] * 64

    def test_all_points_of_coinciding_points_are_valid(self) -> None:
        points = torch.zeros(2, 7, 3)
        points[1, [2, 3, 5]] = 1.0  # two places, which come first
        picked, order = farthest_point_sampling(points, 7), farthest_order(points, 7)
        assert picked.shape == order.shape == (2, 7)
        assert ((picked >= 0) & (picked < 7)).all()
        assert order.sort(dim=1).values.tolist() == [list(range(7))] * 2
        assert points[1, order[1, :2], 0].sum() == points[1, picked[1, :2], 0].sum() == 1

    @pytest.mark.parametrize(
        ("points", "count", "start"),
        [(torch.zeros(1, 5, 3), 6, "farthest"), (torch.zeros(1, 5, 3), 0, "farthest"),
         (torch.zeros(1, 5, 2), 1, "farthest"), (torch.zeros(1, 5, 3), 1, "nearest"), (torch.zeros(1, 5, 3), 1, 5),
         (torch.zeros(1, 5, 3), 1, -1), (torch.zeros(1, 5, 3, dtype=torch.int64), 1, "farthest"),
         (torch.zeros(2, 5, 3), 1, torch.tensor([0])), (torch.zeros(2, 5, 3), 1, torch.tensor([[0, 1]])),
         (torch.zeros(2, 5, 3), 1, torch.tensor([0, 5])), (torch.zeros(2, 5, 3), 1, torch.tensor([-1, 0])),
         (torch.zeros(2, 5, 3), 1, torch.tensor([0.0, 1.0]))],
    )  # fmt: skip
    def test_bad_arguments(self, points, count, start) -> None:
        with pytest.raises(ValueError, match=r"\d"):
            farthest_point_sampling(points, count, start=start)

    def test_starts_are_numbers_of_any_kind_or_one_a_cloud(self) -> None:
        points = cloud(0, 2, 30, 3)
        seven = farthest_point_sampling(points, 5, start=7)
        assert torch.equal(farthest_point_sampling(points, 5, start=np.int64(7)), seven)
        mixed = farthest_point_sampling(points, 5, start=torch.tensor([7, 0]))
        assert torch.equal(mixed[0], seven[0])
        assert torch.equal(mixed[1], farthest_point_sampling(points, 5, start=0)[1])

    @given(seeds, st.integers(1, 70))
    def test_farthest_first_is_a_permutation_that_starts_with_the_picks(self, seed: int, count: int) -> None:
        points = cloud(seed, 2, 40, 3)
        picked = farthest_point_sampling(points, min(count, 40))
        for here, order, there in zip(points, picked, farthest_first(points, count), strict=True):
            rest = [number for number in range(40) if number not in order.tolist()]
            assert torch.equal(there, here[order.tolist() + rest])


class TestNearestNeighbours:
    @given(seeds, st.integers(1, 50))
    def test_distances_equal_brute_force(self, seed: int, count: int) -> None:
        queries, points = cloud(seed, 2, 9, 3), cloud(seed + 1, 2, 40, 3)
        index = nearest_neighbours(queries, points, count)
        assert index.shape == (2, 9, min(count, 40))
        brute = (queries.double()[:, :, None] - points.double()[:, None]).square().sum(dim=3)
        found = brute.gather(2, index)
        expected = brute.sort(dim=2).values[:, :, :count]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
    def test_halves_find_the_nearest_alone_as_among_several(self, kind: torch.dtype) -> None:
        queries, points = torch.rand(2, 9, 3).to(kind), torch.rand(2, 40, 3).to(kind)
        distance = (queries[:, :, None] - points[:, None]).square()
        distance = distance[..., 0] + distance[..., 1] + distance[..., 2]
        for count in (1, 3):
            found = distance.gather(2, nearest_neighbours(queries, points, count))
            assert torch.equal(found, distance.sort(dim=2).values[:, :, :count])

    def test_clouds_far_from_the_origin_keep_their_neighbours(self) -> None:
        # A grid, so that shifting by a power of two is exact.
        points = torch.cartesian_prod(*[torch.arange(6.0)] * 3).unsqueeze(0) / 8
        queries = points[:, ::7] + 1 / 32
        near = nearest_neighbours(queries, points, 4)
        far = nearest_neighbours(queries + 1024, points + 1024, 4)
        brute = (queries[:, :, None] - points[:, None]).square().sum(dim=3)
        torch.testing.assert_close(brute.gather(2, near), brute.gather(2, far), rtol=0, atol=0)

    def test_many_queries_need_little_memory(self) -> None:
        program = """if True:
            import resource, torch
            from pointcentroid.geometry.neighbours import nearest_neighbours
            def peak():
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            points, queries = torch.rand(1, 1024, 3), torch.rand(1, 300_000, 3)
            nearest_neighbours(queries[:, :1000], points, 1)
            before = peak()
            assert nearest_neighbours(queries, points, 1).shape == (1, 300_000, 1)
            print(peak() - before)
        """
        grown = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        assert grown < 100, "MiB; what is returned takes 2.3"

    def test_chunks_change_nothing(self, monkeypatch) -> None:
        queries, points = cloud(0, 3, 50, 3), cloud(1, 3, 70, 3)
        whole = nearest_neighbours(queries, points, 5)
        monkeypatch.setattr(neighbours_module, "_CHUNK", 500)
        assert torch.equal(nearest_neighbours(queries, points, 5), whole)

    @pytest.mark.parametrize("total", [70, 1024])
    def test_a_compiled_search_finds_the_same(self, total: int) -> None:
        queries, points = cloud(0, 3, 50, 3), cloud(1, 3, total, 3)
        points[:, 20:30] = points[:, :10]  # of equals, the first
        compiled = torch.compile(nearest_neighbours, backend="aot_eager", dynamic=False)
        assert torch.equal(compiled(queries, points, 16), nearest_neighbours(queries, points, 16))

    @pytest.mark.parametrize("shapes", [((1, 4, 2), (1, 4, 3)), ((1, 4, 3), (2, 4, 3)), ((4, 3), (4, 3))])
    def test_bad_shapes(self, shapes) -> None:
        with pytest.raises(ValueError, match=r"clouds|shape"):
            nearest_neighbours(torch.zeros(shapes[0]), torch.zeros(shapes[1]), 1)

    def test_gather_points_equals_indexing(self) -> None:
        values, index = cloud(0, 3, 20, 5), torch.randint(20, (3, 4, 6))
        expected = torch.stack([values[b][index[b]] for b in range(3)])
        assert torch.equal(gather_points(values, index), expected)


class TestNestedNeighbours:
    @pytest.mark.parametrize("steps", [None, 9, 2])
    def test_equals_the_search_of_training_in_each_prefix(self, steps: int | None) -> None:
        """On a grid of few places nearly all distances are equal, and of equal ones the first counts."""
        points = cloud(0, 3, 1024, 3) if steps is None else torch.randint(steps, (3, 1024, 3)) / 8
        wanted = {(0, 16): (24, 1024), (1, 16): (24, 24), (2, 5): (7, 9), (3, 16): (4, 4)}
        found = nested_neighbours(points.numpy(), wanted)
        assert found.keys() == wanted.keys()
        for name, (rows, columns) in wanted.items():
            expected = nearest_neighbours(points[:, :rows], points[:, :columns], name[1])
            assert torch.equal(torch.from_numpy(found[name]), expected)

    def test_chunks_change_nothing(self, monkeypatch) -> None:
        points, wanted = cloud(0, 2, 70, 3).numpy(), {(0, 5): (40, 70), (1, 3): (9, 40)}
        whole = nested_neighbours(points, wanted)
        monkeypatch.setattr(nearest_module, "_HELD", 500)
        monkeypatch.setattr(nearest_module, "_CHUNK", 150)
        for name, values in nested_neighbours(points, wanted).items():
            np.testing.assert_array_equal(values, whole[name])

    def test_more_than_there_are_counts_as_all(self) -> None:
        points = cloud(0, 2, 12, 3)
        found = nested_neighbours(points.numpy(), {(0, 16): (24, 1024)})[0, 16]
        assert torch.equal(torch.from_numpy(found), nearest_neighbours(points, points, 12))


class TestSampling:
    TRIANGLES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 2, 5]], dtype=float)
    FACES = np.array([[0, 1, 2], [3, 4, 5]])

    def test_points_lie_on_the_triangles_in_proportion_to_their_areas(self) -> None:
        count = 20_000
        points = sample_surface(self.TRIANGLES, self.FACES, count, np.random.default_rng(0))
        lower = points[:, 2] < 0
        # Areas 0.5 and 3. Five standard deviations of a binomial count.
        expected, spread = count * 0.5 / 3.5, 5 * np.sqrt(count * (0.5 / 3.5) * (3 / 3.5))
        assert abs(lower.sum() - expected) < spread
        scale = 5.0  # the largest extent, by which the sampler divides
        on_big = points[~lower] * scale + [1.5, 1.0, 2.5]
        assert on_big[:, :2].min() >= -1e-12
        assert (on_big[:, 0] / 3 + on_big[:, 1] / 2).max() <= 1 + 1e-12
        np.testing.assert_allclose(on_big[:, 2], 5, atol=1e-12)
        # Uniform on a triangle: the mean is its centroid.
        np.testing.assert_allclose(on_big.mean(axis=0), (1, 2 / 3, 5), atol=0.03)

    def test_a_triangle_without_area_is_never_chosen(self) -> None:
        vertices = np.vstack([self.TRIANGLES, [[9.0, 9, 9]]])
        faces = np.array([[6, 6, 6], [0, 1, 2], [6, 6, 6]])
        points = sample_surface(vertices, faces, 1000, np.random.default_rng(0))
        assert np.ptp(points[:, 2]) == 0

    def test_coordinates_of_1e11_keep_their_digits(self) -> None:
        # The smallest step of float64 at 1e11 is 1.5e-5; float32 would collapse the triangle to nothing.
        near = sample_surface(self.TRIANGLES, self.FACES, 500, np.random.default_rng(0))
        far = sample_surface(self.TRIANGLES + 1e11, self.FACES, 500, np.random.default_rng(0))
        np.testing.assert_allclose(near, far, atol=1e-4)

    def test_no_area_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="area"):
            sample_surface(self.TRIANGLES, np.array([[0, 0, 1]]), 10, np.random.default_rng(0))

    @pytest.mark.parametrize("vertices", [TRIANGLES, np.empty((0, 3))], ids=len)
    def test_no_faces_have_no_points_and_no_neighbours(self, vertices: np.ndarray) -> None:
        none = np.empty((0, 3), dtype=np.int64)
        for sample in (sample_surface, surface_points):
            with pytest.raises(ValueError, match="no triangles"):
                sample(vertices, none, 10, np.random.default_rng(0))
        pairs, lengths = face_neighbours(vertices, none)
        assert pairs.shape == (0, 2)
        assert lengths.shape == (0,)

    @given(seeds, st.integers(1, 40), st.integers(1, 40))
    def test_thinning_keeps_a_subset_in_order(self, seed: int, total: int, count: int) -> None:
        points = np.arange(3.0 * total).reshape(-1, 3)
        kept = thin(points, count, np.random.default_rng(seed))
        assert len(kept) == min(total, count)
        assert (np.diff(kept[:, 0]) > 0).all()
        assert set(map(tuple, kept)) <= set(map(tuple, points))

    @given(seeds, st.integers(1, 40), st.integers(1, 60), st.sampled_from([1e-3, 1.0, 1e6]))
    def test_a_small_cloud_is_filled_between_its_points(self, seed: int, total: int, count: int, size: float) -> None:
        points = size * (np.random.default_rng(seed).normal(size=(total, 3)) + 5)
        made = filled(points, count, np.random.default_rng(seed))
        assert len(made) == max(total, count)
        assert np.array_equal(made[:total], points)
        away = np.linalg.norm(points[:, None] - points, axis=2)
        nearest = np.sort(away, axis=1)[:, : min(7, total)].max(axis=1)
        for new in made[total:]:
            ends = np.linalg.norm(points - new, axis=1)
            # On the line between two points, of which one is among the seven nearest of the other.
            between = np.abs(ends[:, None] + ends - away) <= 1e-6 * size
            assert (between & (away <= nearest[:, None] * (1 + 1e-5))).any()

    def test_what_a_small_cloud_is_filled_with_are_few_copies(self) -> None:
        made = filled(np.random.default_rng(0).normal(size=(40, 3)), 1000, np.random.default_rng(1))
        copies = (np.linalg.norm(made[40:, None] - made[:40], axis=2).min(axis=1) < 1e-9).mean()
        assert copies < 0.25, "a point is among its own seven nearest"


class TestNormalise:
    @given(seeds, st.integers(2, 50), st.floats(-1e6, 1e6), st.sampled_from([1e-140, 1e-3, 1.0, 1e5, 1e140]))
    def test_zero_mean_and_radius_one_wherever_and_however_large(self, seed, count, place, size) -> None:
        points = np.random.default_rng(seed).normal(size=(count, 3)) * size + place * size
        unit, frame = normalise(points)
        np.testing.assert_allclose(frame.left(unit), points, atol=1e-9 * np.abs(points).max())
        np.testing.assert_allclose(frame.entered(points), unit, atol=1e-12)
        np.testing.assert_allclose(unit.mean(axis=0), 0, atol=1e-9)
        assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1)

    def test_does_not_depend_on_units_or_place(self, points: np.ndarray) -> None:
        np.testing.assert_allclose(normalise(points)[0], normalise(points * 25.4 - 7.0)[0], atol=1e-12)

    def test_coinciding_points_stay_finite(self) -> None:
        assert not normalise(np.full((4, 3), 3.3))[0].any()

    def test_preprocessing_is_repeatable_bit_for_bit(self, points: np.ndarray) -> None:
        faces = np.random.default_rng(1).integers(len(points), size=(300, 3))
        for f in (None, faces):
            a, b = (preprocess(points, f, 256, seed=3) for _ in range(2))
            assert a.tobytes() == b.tobytes()
            assert a.tobytes() != preprocess(points, f, 256, seed=4).tobytes()
            assert a.shape == (256, 3)
            assert a.dtype == np.float32


class TestOrientation:
    @pytest.mark.parametrize("up", UP_AXES)
    def test_rotations_are_proper_and_bring_the_axis_to_z(self, up: str) -> None:
        axis = np.zeros(3)
        axis["xyz".index(up[-1])] = -1 if up[0] == "-" else 1
        np.testing.assert_array_equal(TO_Z_UP[up] @ axis, (0, 0, 1))
        assert np.linalg.det(TO_Z_UP[up]) == pytest.approx(1)

    def test_y_up_becomes_x_minus_z_y(self) -> None:
        np.testing.assert_array_equal(np.array([[1.0, 2.0, 3.0]]) @ TO_Z_UP["y"].T, [[1, -3, 2]])


def half_surface(points: np.ndarray) -> float:
    x, y, z = np.ptp(points, axis=0)
    return x * y + y * z + x * z


class TestBox:
    @given(seeds)
    def test_the_frame_of_a_turned_box_is_that_of_the_box(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rotation = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
        size = rng.uniform(0.3, 1, size=3)
        corners = np.array(list(itertools.product((-1, 1), repeat=3))) * size
        box = np.concatenate([corners, rng.uniform(-size, size, size=(200, 3))])
        frame = box_frame(box @ rotation.T)
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(frame) == pytest.approx(1)
        assert half_surface(box @ rotation.T @ frame.T) == pytest.approx(half_surface(corners), rel=0.01)

    @given(seeds)
    def test_no_rotation_of_many_leads_to_a_box_much_smaller(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(int(rng.integers(16, 400)), 3)) * rng.uniform(0.1, 1, size=3)
        found = half_surface(points @ box_frame(points).T)
        others = [trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3] for _ in range(300)]
        assert found <= 1.01 * min(half_surface(points @ other.T) for other in [np.eye(3), *others])

    @given(seeds)
    def test_of_all_frames_of_a_box_it_is_the_nearest(self, seed: int) -> None:
        points = np.random.default_rng(seed).normal(size=(60, 3)) * (1, 0.7, 0.4)
        frame = box_frame(points)
        for axis in UP_AXES:
            for quarter in range(4):
                about = np.linalg.matrix_power(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), quarter)
                assert angle(frame) <= angle(about @ TO_Z_UP[axis] @ frame) + 1e-6

    def test_a_cloud_in_its_box_stays_as_it_is(self) -> None:
        corners = np.array(list(itertools.product((-1, 1), repeat=3))) * (1, 0.7, 0.4)
        assert angle(box_frame(np.repeat(corners, 3, axis=0))) == 0

    @given(seeds, st.integers(1, 20))
    def test_a_cloud_whose_boxes_are_all_equal_stays_as_it_is(self, seed: int, count: int) -> None:
        point = np.random.default_rng(seed).normal(size=3)
        np.testing.assert_array_equal(box_frame(point[None]), np.eye(3))
        np.testing.assert_array_equal(box_frame(np.zeros((count, 3))), np.eye(3))


def test_directions_are_called_by_their_axes() -> None:
    turn = trimesh.transformations.rotation_matrix
    for name in UP_AXES:
        assert up_name(TO_Z_UP[name]) == name
        assert up_name(turn(1.0, (0, 0, 1))[:3, :3] @ TO_Z_UP[name]) == name, "headings do not matter"
        assert up_name(turn(np.deg2rad(1.9), (1, 0, 0))[:3, :3] @ TO_Z_UP[name]) == name
    assert up_name(turn(np.pi / 4, (1, 0, 0))[:3, :3]) == "0.00,0.71,0.71"
    assert up_name(turn(np.deg2rad(2.1), (-1, 0, 0))[:3, :3]) == "0.00,-0.04,1.00"
