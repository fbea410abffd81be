"""How alike are two ways to tell items apart? Between labels, up to their names."""

from __future__ import annotations

import numpy as np


def adjusted_rand_index(one: np.ndarray, other: np.ndarray) -> float:
    """Agreement of two clusterings, corrected for chance (Hubert and Arabie, "Comparing partitions", 1985).

    Args:
        one: (N,) integer labels.
        other: (N,) integer labels.

    Returns:
        1 where the clusters are the same up to their names, 0 on average for random labels.

    Raises:
        ValueError: the lengths differ.
    """
    table = _contingency(one, other)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, by_row, by_column = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    total = len(one) * (len(one) - 1) / 2
    expected = by_row * by_column / total if total else 0.0
    largest = (by_row + by_column) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def normalised_mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """2 I / (H1 + H2): what two clusterings say of each other, as a share of what both say.

    Source: A. Strehl, J. Ghosh, "Cluster ensembles", JMLR 2002, with the arithmetic mean of the entropies.

    Args:
        one: (N,) integer labels.
        other: (N,) integer labels.

    Returns:
        1 where the clusters are the same up to their names, 0 where neither says anything of the other. It is not corrected
        for chance: compare only clusterings into as many clusters.

    Raises:
        ValueError: the lengths differ.
    """
    joint = _contingency(one, other) / max(len(one), 1)
    by_row, by_column = joint.sum(axis=1), joint.sum(axis=0)

    def entropy(shares: np.ndarray) -> float:
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    both = entropy(by_row) + entropy(by_column)
    return 1.0 if both == 0 else max(2 * (both - entropy(joint)) / both, 0.0)


def _contingency(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many items have each pair of labels: a row for each label of the one, a column for each of the other."""
    if len(one) != len(other):
        raise ValueError(f"two labels for every item are needed, found {len(one)} and {len(other)}")
    rows, columns = np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]
    table = np.zeros((rows.max(initial=0) + 1, columns.max(initial=0) + 1))
    np.add.at(table, (rows, columns), 1)
    return table
