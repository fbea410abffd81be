"""A file in, the shape that its few centroids remember out, in the file's own frame and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pointcentroid.config import AutoencoderConfig
from pointcentroid.errors import WeightsError
from pointcentroid.geometry.axes import transformed, up_name
from pointcentroid.geometry.chamfer import chamfer_distance, f_score
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.sampling import Frame, normalise
from pointcentroid.io.shape import Shape
from pointcentroid.nn.autoencoder import CentroidAutoencoder
from pointcentroid.predict.explain import hierarchy
from pointcentroid.predict.preparing import Source, as_shape, cloud_in_frame, source_name
from pointcentroid.predict.runtimes import open_net
from pointcentroid.predict.torch_net import choose_device
from pointcentroid.predict.up import Up, UpFinder, given_turn
from pointcentroid.results import Hierarchy, StageExplanation
from pointcentroid.viz.panel import Panel
from pointcentroid.viz.picture import Row, Tile
from pointcentroid.weights import STAND_IN, find_weights, load_weights

F_THRESHOLD = 0.05
"""Within which distance, of a shape of radius 1, a point counts as found."""


@dataclass(frozen=True)
class Reconstruction:
    """A shape through its latent and back.

    Attributes:
        file: the file, or `"<array>"`, `"<Trimesh>"` ...
        points: (count, 3) float64, in the file's frame and units.
        centroids: (M, 3) float64 positions of the latent centroids, there too.
        patch: (count,) int64, the centroid that grew each point.
        latent: (M, 3 + code) float32, all that the decoder saw: positions, in the frame of the net, and codes.
        up: what was taken to point up, see `Prediction`.
        chamfer: of what was made from one sampling of the surface, to another; squared, both directions added, radius 1.
        oracle: the same of the two samplings, the floor.
        f_score: of what was made, to the other sampling, within `F_THRESHOLD`.
        oracle_f_score: of the two samplings.
        compression: coordinates that the net was shown, by numbers in the latent.
        seen: the cloud that the net was shown, and the centroids of the encoder.
    """

    file: str
    points: np.ndarray
    centroids: np.ndarray
    patch: np.ndarray
    latent: np.ndarray
    up: str
    chamfer: float
    oracle: float
    f_score: float
    oracle_f_score: float
    compression: float
    seen: Hierarchy


class Reconstructor:
    """A trained autoencoder that takes shapes as people have them.

    Args:
        weights: the name of shipped weights or a weights file.
        device: `"auto"`, or a torch device.

    Raises:
        WeightsError: there are no such weights, they are damaged, or of a classifier.
        ConfigError: there is no such device.
    """

    def __init__(self, weights: str | Path = "autoencoder", device: str = "auto") -> None:
        self.device = choose_device(device)
        tensors, self.card = load_weights(find_weights(weights))
        if not isinstance(self.card.model, AutoencoderConfig):
            other = "; `pointcentroid classify` is for it" if self.card.model.kind == "classifier" else ""
            raise WeightsError(f"{weights} is a net of the kind {self.card.model.kind!r}, which does not reconstruct{other}")
        self.net = CentroidAutoencoder.from_tensors(self.card.model, tensors).to(self.device)

    @cached_property
    def _finder(self) -> UpFinder:
        return UpFinder(open_net(find_weights(STAND_IN), str(self.device)))

    @torch.inference_mode()
    def __call__(self, source: Source, count: int = 2048, *, up: Up | np.ndarray = "auto") -> Reconstruction:
        """Reconstruct one shape.

        Args:
            source: a file, an (N, 3) array, a shape, or `Data` of PyTorch Geometric.
            count: points to make.
            up: see `Predictor.__call__`.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            MissingExtraError: the format needs an optional dependency.
            ConfigError: `up` is no axis and no rotation.
            ValueError: `count` is not positive.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, found {count}")
        turn = given_turn(up)
        shape, settings = as_shape(source), self.card.preprocess
        cloud, frame = cloud_in_frame(source, shape, settings, settings.seed)
        if turn is None:
            turn = self._finder.turn_of(cloud, source_name(source))
        shown = self._ordered(cloud @ turn.T)
        latent = self.net.encode(shown, ordered=True)
        grown = self.net.decode(latent, count)

        def back(points: Tensor) -> np.ndarray:
            return frame.left(points[0].cpu().double().numpy() @ turn)

        seen, other = (self._tensor(half @ turn.T) for half in self._two_samplings(source, shape, cloud, frame))
        scored = self.net(self._ordered(seen[0].cpu().numpy()), other.shape[1], ordered=True)
        return Reconstruction(
            file=source_name(source),
            points=back(grown),
            centroids=back(latent.positions),
            patch=np.arange(count) % latent.positions.shape[1],
            latent=torch.cat(latent, dim=2)[0].cpu().numpy(),
            up=up_name(turn),
            chamfer=float(chamfer_distance(scored, other)),
            oracle=float(chamfer_distance(seen, other)),
            f_score=float(f_score(scored, other, F_THRESHOLD)),
            oracle_f_score=float(f_score(seen, other, F_THRESHOLD)),
            compression=3 * len(cloud) / torch.cat(latent, dim=2).numel(),
            seen=hierarchy(self.net.encoder(shown, ordered=True, assignments=True), shown, shape, frame, turn),
        )

    def _two_samplings(self, source: Source, shape: Shape, cloud: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Two independent samplings in one frame: of a mesh, or the two random halves of a point file."""
        settings = self.card.preprocess
        if shape.faces is None:
            order = np.random.default_rng(settings.seed).permutation(len(cloud))
            half = max(1, len(cloud) // 2)
            first, inner = normalise(cloud[order[:half]])
            return first, inner.entered(cloud[order[half:]])
        again, other = cloud_in_frame(source, shape, settings, settings.seed + 1)
        return cloud, frame.entered(other.left(again))

    def _tensor(self, cloud: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(cloud, dtype=np.float32)).unsqueeze(0).to(self.device)

    def _ordered(self, cloud: np.ndarray) -> Tensor:
        points = self._tensor(cloud)
        return farthest_first(points, self.net.config.seeds)


def panels(made: Reconstruction) -> list[Panel]:
    """What there is to see of a reconstruction, in one frame: the original, seen through the encoder's centroids; what was
    made of it, by the centroid that grew it; and that without its centroids.

    Args:
        made: the reconstruction.
    """
    grown = transformed(made.points, made.seen.transform).astype(np.float32)
    last = made.seen.stages[-1]
    shares = np.eye(len(last.positions), dtype=np.float32)[made.patch]
    patches = StageExplanation(last.positions, last.features, shares[None], shares)
    figures = f"Chamfer x 1000 {1000 * made.chamfer:.2f}, oracle {1000 * made.oracle:.2f}"
    return [
        Panel(made.seen, f"{Path(made.file).name}: {figures}"),
        Panel(Hierarchy(grown, [patches], made.seen.transform, made.points, None), "patches"),
        Panel(Hierarchy(grown, [], made.seen.transform, made.points, None), "reconstruction"),
    ]


def side_by_side(shown: list[Panel]) -> list[Row]:
    """The row of a picture that shows the three panels of `panels`.

    Args:
        shown: what `panels` made.
    """
    original, patches, made = shown
    return [Row(original.title, [Tile(original, 0, "original"), Tile(patches, 1, patches.title), Tile(made, 0, made.title)])]
