"""Points, written in every format that holds points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh


def write_points(path: Path, points: np.ndarray) -> None:
    kind = path.suffix
    if kind in (".xyz", ".txt"):
        np.savetxt(path, points)
    elif kind == ".csv":
        np.savetxt(path, points, delimiter=",", header="x,y,z", comments="")
    elif kind == ".pts":
        np.savetxt(path, points, header=str(len(points)), comments="")
    elif kind == ".npy":
        np.save(path, points)
    elif kind == ".npz":
        np.savez(path, points=points)
    elif kind == ".ply":
        trimesh.PointCloud(points).export(path)
    elif kind in (".las", ".laz"):
        import laspy

        cloud = laspy.create()
        cloud.header.scales, cloud.header.offsets = np.full(3, 1e-6), points.mean(axis=0)
        cloud.x, cloud.y, cloud.z = points.T
        cloud.write(str(path))
