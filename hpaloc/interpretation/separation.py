"""How well cells of one location lie together in a space of features, judged across fields."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances

from hpaloc.progress import log
from hpaloc.resampling import percentile_interval, resampled_groups, shuffled_labels

NEIGHBOURS = 10
_COMPONENTS = 50


def standardised(features: np.ndarray) -> np.ndarray:
    """Return features (n, d) with mean 0 and variance 1; columns that are constant or not finite are left out."""
    features = np.asarray(features, np.float64)
    spread = features.std(axis=0)
    kept = np.isfinite(spread) & (spread > 1e-9 * np.maximum(1, np.abs(features).max(axis=0, initial=0)))
    return (features[:, kept] - features[:, kept].mean(axis=0)) / spread[kept]


def distances(features: np.ndarray) -> np.ndarray:
    """Return the (n, n) Euclidean distances of cells in standardised features (n, d)."""
    return pairwise_distances(standardised(features))


def comparable(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (n,) bool: whether a cell's class is held by another group too, so that it can be told across groups."""
    table = pd.DataFrame({"label": labels, "group": groups})
    return (table.groupby("label")["group"].transform("nunique") > 1).to_numpy()


def neighbour_calls(distance: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Call each cell by its k nearest cells of other groups, (n,) labels; of equal votes the nearer class wins.

    Cells of one field share stain, light and neighbours: a neighbour of the same group would tell the field, not the
    location. distance (n, n), labels (n,), groups (n,).
    """
    apart = np.where(groups[:, None] == groups[None], np.inf, distance)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(apart, order, axis=1)
    classes, index = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(labels), len(classes)))
    # A vote is worth one; how near it is only settles equal numbers.
    worth = np.where(np.isfinite(near), 1 + 1e-6 / (1 + np.where(np.isfinite(near), near, 0)), 0)
    np.add.at(votes, (np.arange(len(labels))[:, None], index[order]), worth)
    return classes[votes.argmax(axis=1)]


def silhouettes(distance: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the silhouette of each cell over cells of other groups, (n,) from -1 to 1, nan where no such cell shares
    its class.

    (b - a) / max(a, b), a the mean distance to its own class, b that to the nearest other class (Rousseeuw 1987), both
    over cells of other groups, as ``neighbour_calls`` explains.
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


def grouped_mean(values: np.ndarray, groups: np.ndarray, replicates: int = 1000, seed: int = 0) -> dict[str, float]:
    """Return mean, low and high of values (n,), the 95 % interval from resampling whole groups; nan values are left
    out, and the interval is nan for fewer than two groups."""
    known = np.isfinite(values)
    values, groups = values[known], groups[known]
    if not len(values):
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    names, group = np.unique(groups, return_inverse=True)
    interval = None
    if len(names) > 1:
        weights = resampled_groups(len(names), replicates, seed)
        drawn = weights @ np.bincount(group, minlength=len(names))
        interval = percentile_interval(weights @ np.bincount(group, values, len(names)) / drawn)
    low, high = interval or (np.nan, np.nan)
    return {"value": float(values.mean()), "low": low, "high": high}


def separation(
    spaces: Mapping[tuple[str, str], np.ndarray], labels: np.ndarray, groups: np.ndarray, seed: int, shuffles: int = 20
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score how spaces of features separate the locations, across groups.

    spaces: (network, layer) to features (n, d) of the same cells; labels (n,) classes, groups (n,). Returns a table
    with a row for each space and score (network, layer, score, value, low, high, shuffled, n_cells), and one with the
    cells' own values (network, layer, row, right, silhouette). Scores are the accuracy of the 10 nearest cells of
    other groups and the mean silhouette over other groups; intervals come from resampling groups; ``shuffled`` is the
    mean over ``shuffles`` in which every group takes the labels of another. Cells of a class that one group holds
    alone are left out of the scores.
    """
    scored = comparable(labels, groups)
    shuffled = [labels[shuffled_labels(groups, seed + number)] for number in range(shuffles)]
    rows, singles = [], []
    for (network, layer), features in spaces.items():
        distance = distances(features)
        right = (neighbour_calls(distance, labels, groups) == labels).astype(float)
        silhouette = silhouettes(distance, labels, groups)
        by_chance = [
            (
                np.mean((neighbour_calls(distance, other, groups) == other)[comparable(other, groups)]),
                np.nanmean(np.append(silhouettes(distance, other, groups), np.nan)),
            )
            for other in shuffled
        ]
        for place, (score, values) in enumerate((("knn_accuracy", right), ("silhouette", silhouette))):
            found = grouped_mean(np.where(scored, values, np.nan), groups, seed=seed)
            chance = float(np.nanmean([pair[place] for pair in by_chance]))
            rows.append((network, layer, score, *found.values(), chance, int(scored.sum())))
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


def planar_maps(features: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return 2-D maps of cells (n, d) by UMAP and t-SNE, each (n, 2) float32, the same for the same seed.

    Both are of the leading 50 principal components of the standardised features.
    """
    # Compiled code that takes seconds to load, which nobody else here needs.
    import umap

    scaled = standardised(features)
    components = min(_COMPONENTS, len(scaled) - 1, scaled.shape[1])
    leading = PCA(components, random_state=seed).fit_transform(scaled)
    neighbours = min(15, len(leading) - 1)
    reducer = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
    perplexity = min(30.0, (len(leading) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, random_state=seed, init="pca" if components > 1 else "random")
    return {
        "UMAP": reducer.fit_transform(leading).astype(np.float32),
        "t-SNE": tsne.fit_transform(leading).astype(np.float32),
    }
