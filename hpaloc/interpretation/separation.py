"""How well a space of features separates the locations, judged across fields."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances

from hpaloc.progress import log
from hpaloc.resampling import replicated_mean
from hpaloc.shuffles import shuffled_labels

NEIGHBOURS = 10
_COMPONENTS = 50


def standardised(features: np.ndarray) -> np.ndarray:
    """Return features (n, d) as float64 of mean 0 and variance 1, without columns that are constant or have nan."""
    features = np.asarray(features, np.float64)
    spread = features.std(axis=0)
    kept = np.isfinite(spread) & (spread > 1e-9 * np.maximum(1, np.abs(features).max(axis=0, initial=0)))
    return (features[:, kept] - features[:, kept].mean(axis=0)) / spread[kept]


def distances(features: np.ndarray) -> np.ndarray:
    """Return the (n, n) float64 Euclidean distances of cells in standardised features (n, d)."""
    return pairwise_distances(standardised(features))


def comparable(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return whether each cell's class is also in another group, (n,) bool; labels, groups: (n,) of any type."""
    table = pd.DataFrame({"label": labels, "group": groups})
    return (table.groupby("label")["group"].transform("nunique") > 1).to_numpy()


def nearest(distance: np.ndarray, groups: np.ndarray, k: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest cells of other groups of each cell: (n, k) rows and distances, inf if there are fewer.

    Cells of one field share stain, light and neighbours: a neighbour of the same group would show the field, not the
    location.

    distance: (n, n) float64
    groups: (n,) of any type
    """
    apart = np.where(groups[:, None] == groups[None], np.inf, distance)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(apart, order, axis=1)


def neighbour_calls(neighbours: tuple[np.ndarray, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Call each cell by its nearest cells, (n,) of the type of the labels; with equal votes the nearer class wins.

    neighbours: rows (n, k) int64 and distances (n, k) float64 as ``nearest`` returns them
    labels: (n,) of any type
    """
    order, near = neighbours
    classes, index = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(labels), len(classes)))
    # A vote counts one; its distance only decides between equal numbers.
    worth = np.where(np.isfinite(near), 1 + 1e-6 / (1 + np.where(np.isfinite(near), near, 0)), 0)
    np.add.at(votes, (np.arange(len(labels))[:, None], index[order]), worth)
    return classes[votes.argmax(axis=1)]


def silhouettes(distance: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the silhouette of each cell over cells of other groups, (n,) from -1 to 1, nan if none has its class.

    It is (b - a) / max(a, b), a the mean distance to the cell's class, b that to the nearest other class, both over
    cells of other groups, as ``nearest`` explains.

    distance: (n, n) float
    labels, groups: (n,) of any type

    Source: Rousseeuw 1987.
    """
    classes, index = np.unique(labels, return_inverse=True)
    other = groups[:, None] != groups[None]
    member = np.eye(len(classes))[index]
    count = other.astype(float) @ member
    with np.errstate(invalid="ignore"):
        mean = np.where(other, distance, 0) @ member / count
    rows = np.arange(len(labels))
    own = mean[rows, index]
    mean[rows, index] = np.nan
    nearest = np.nanmin(np.where(np.isnan(mean), np.inf, mean), axis=1, initial=np.inf)
    with np.errstate(invalid="ignore"):
        value = (nearest - own) / np.maximum(nearest, own)
    return np.where(np.isfinite(nearest), value, np.nan)


def score_separation(
    spaces: Mapping[tuple[str, str], np.ndarray], labels: np.ndarray, groups: np.ndarray, seed: int, shuffles: int = 20
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score how well spaces of features separate the locations, across groups.

    Scores are the accuracy of the 10 nearest cells of other groups and the mean silhouette over other groups; intervals
    come from resampling groups; ``shuffled`` is the mean over ``shuffles`` in which every group takes the labels of
    another. Cells of a class that is in one group only are left out.

    spaces: (network, layer) to features (n, d) float of the same cells
    labels: (n,) classes
    groups: (n,) of any type

    Returns a table of each space and score (network, layer, score, value, low, high, shuffled, n_cells), and one of
    each cell's values (network, layer, row, right, silhouette).
    """
    scored = comparable(labels, groups)
    shuffled = [labels[shuffled_labels(groups, seed + number)] for number in range(shuffles)]
    rows, singles = [], []
    for (network, layer), features in spaces.items():
        distance = distances(features)
        neighbours = nearest(distance, groups)
        right = (neighbour_calls(neighbours, labels) == labels).astype(float)
        silhouette = silhouettes(distance, labels, groups)
        by_chance = [
            (
                np.mean((neighbour_calls(neighbours, other) == other)[comparable(other, groups)]),
                np.nanmean(np.append(silhouettes(distance, other, groups), np.nan)),
            )
            for other in shuffled
        ]
        for place, (score, values) in enumerate((("knn_accuracy", right), ("silhouette", silhouette))):
            known = scored & np.isfinite(values)
            value = float(values[known].mean()) if known.any() else np.nan
            low, high = replicated_mean(values[known], groups[known], seed=seed) or (np.nan, np.nan)
            chance = float(np.nanmean([pair[place] for pair in by_chance]))
            rows.append((network, layer, score, value, low, high, chance, int(known.sum())))
        singles.append(
            pd.DataFrame(
                {
                    "network": network,
                    "layer": layer,
                    "row": np.arange(len(labels)),
                    "right": np.where(scored, right, np.nan),
                    "silhouette": np.where(scored, silhouette, np.nan),
                }
            )
        )
        log.info("%s, %s: kNN accuracy %.3f", network, layer, rows[-2][3])
    names = ["network", "layer", "score", "value", "low", "high", "shuffled", "n_cells"]
    return pd.DataFrame(rows, columns=names), pd.concat(singles, ignore_index=True)


def planar_maps(spaces: Sequence[np.ndarray], method: str, seed: int) -> list[np.ndarray]:
    """Return a 2-D map of the cells of each space, (n, 2) float32, the same for the same seed.

    The map is of the leading 50 principal components of the standardised features. Several spaces in one call compile
    UMAP once, which takes as long as five maps of a thousand cells.

    spaces: (n, d) float each
    method: "UMAP" or "t-SNE"

    Raises KeyError for another method.
    """
    return [_METHODS[method](_leading(features, seed), seed).astype(np.float32) for features in spaces]


def _leading(features: np.ndarray, seed: int) -> np.ndarray:
    scaled = standardised(features)
    components = min(_COMPONENTS, len(scaled) - 1, scaled.shape[1])
    return np.asarray(PCA(components, random_state=seed).fit_transform(scaled))


def _umap(leading: np.ndarray, seed: int) -> np.ndarray:
    # The variant that trains a network is not used, and would load TensorFlow and PyTorch.
    sys.modules.setdefault("umap.parametric_umap", None)  # type: ignore[arg-type]
    # Imported here, since its compiled code takes seconds to load.
    import umap

    neighbours = min(15, len(leading) - 1)
    return np.asarray(umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(leading))


def _tsne(leading: np.ndarray, seed: int) -> np.ndarray:
    perplexity = min(30.0, (len(leading) - 1) / 3)
    init = "pca" if leading.shape[1] > 1 else "random"
    # Enough for a thousand cells: 1000 steps preserve neighbours equally well, to the third digit.
    tsne = TSNE(perplexity=perplexity, random_state=seed, init=init, max_iter=500)
    return np.asarray(tsne.fit_transform(leading))


_METHODS = {"UMAP": _umap, "t-SNE": _tsne}
