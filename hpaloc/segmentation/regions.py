"""Label images as graphs: regions that touch, the image along their borders, joining of regions, and solidity."""

from collections.abc import Callable
from typing import Literal

import cv2
import fastremap
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components


def borders(
    labels: np.ndarray,
    values: np.ndarray,
    of_two: Callable[[np.ndarray, np.ndarray], np.ndarray],
    summary: Literal["max", "mean"],
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of regions that touch, and summarise an image along each common border.

    labels: (h, w) int, 0 is background
    values: (h, w) float
    of_two: the value of two facing pixels (np.minimum …)
    summary: of these values along a border
    Returns pairs (n, 2) int64, lower id first, in ascending order, and the summary (n,) float64.
    """
    found, on_border = [], []
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        touch = (labels[one] != labels[other]) & (labels[one] > 0) & (labels[other] > 0)
        a, b = labels[one][touch].astype(np.int64), labels[other][touch].astype(np.int64)
        found.append(np.minimum(a, b) << 32 | np.maximum(a, b))
        on_border.append(of_two(values[one][touch], values[other][touch]))
    codes, where = np.unique(np.concatenate(found), return_inverse=True)
    faced = np.concatenate(on_border).astype(np.float64)
    if summary == "max":
        result = np.full(codes.size, -np.inf)
        np.maximum.at(result, where, faced)
    else:
        result = np.bincount(where, faced, codes.size) / np.bincount(where, minlength=codes.size)
    return np.stack((codes >> 32, codes & 0xFFFFFFFF), axis=1), result


def join(labels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Join pairs of regions; chains of pairs become one region.

    labels: (h, w) int
    pairs: (n, 2) int
    Returns (h, w) int32, 1 … m in the order of first appearance.
    """
    n = int(labels.max(initial=0)) + 1
    graph = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    joined = (group + 1)[labels]
    joined[labels == 0] = 0
    return fastremap.renumber(joined.astype(np.int32))[0].astype(np.int32)


def summarise(summary: Literal["max", "median"], values: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the maximum or the median of an image in each of some regions, (n,) float.

    values: (h, w) float
    labels: (h, w) int, 0 is background
    ids: (n,) int, above 0

    nan for an id that is absent.
    """
    inside = labels > 0
    # Five times as fast as SciPy, which sorts all pixels.
    of_regions = pd.Series(values[inside]).groupby(labels[inside]).agg(summary)
    return of_regions.reindex(ids).to_numpy()


def solidity(body: np.ndarray) -> float:
    """Return the share of its convex hull that a body fills; (h, w) bool, not empty, in one piece or several."""
    mask = body.astype(np.uint8)
    hull = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(np.argwhere(body)[:, ::-1].astype(np.int32)), (1,))
    return float(mask.sum() / np.asarray(hull).sum())
