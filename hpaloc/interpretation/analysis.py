"""From the answers of the networks to tables, claims and the data of figures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from joblib import delayed

from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.files import atomic_path
from hpaloc.interpretation.annotated import read_mixed_fields
from hpaloc.interpretation.claims import (
    Claim,
    cell_claims,
    few_shot_claim,
    layer_claims,
    mixture_claim,
    unit_claims,
    write_claims,
)
from hpaloc.interpretation.few_shot import few_shot_curves
from hpaloc.interpretation.processes import in_processes
from hpaloc.interpretation.separation import planar_maps, score_separation
from hpaloc.interpretation.studied import chosen_cells
from hpaloc.interpretation.units import describe_units
from hpaloc.leaving_out import is_left_out
from hpaloc.progress import log, track
from hpaloc.tables import NETWORK, PROBABILITIES

DEEPEST = "embedding"
# The learner and the examples per class by which the transfer is judged, or the nearest configured number.
JUDGED_LEARNER, JUDGED_EXAMPLES = "logistic_regression", 10


@dataclass(frozen=True)
class InterpretationSettings:
    """The part of the section ``interpretation`` for the analysis; its schema says what each key means."""

    permutations: int = 199
    held_out: Sequence[int] = ()
    examples: Sequence[int] = (1, 2, 5, 10, 20, 50)
    draws: int = 20


def labelled_predictions(
    cells: pd.DataFrame, predictions: Mapping[str, Path], left_out: Mapping[str, Path]
) -> pd.DataFrame:
    """Return the predictions of collections with label (-1 unless it is one location) and group of each cell.

    p_0..p_18 are of the network alone, which is studied, even if the tables have them fused with a regression. Fields
    without a labelled cell are left out, and so is what the scores leave out: it does not test the network.

    cells: a table STUDIED
    predictions: collection to its cells.parquet
    left_out: collection to its table ``seen.finding.LEFT_OUT``, if it is known what trained the network
    """
    parts = []
    for name, path in predictions.items():
        of_network = NETWORK if NETWORK[0] in pq.read_schema(path).names else PROBABILITIES
        table = pd.read_parquet(path, columns=["field", "cell", *of_network])
        table = table.rename(columns=dict(zip(of_network, PROBABILITIES, strict=True)))
        own = cells[cells["collection"] == name]
        table = table.merge(own[["field", "cell", "label"]], on=["field", "cell"], how="left")
        table["label"] = table["label"].fillna(-1).astype(int)
        table["group"] = table["field"].map(own.drop_duplicates("field").set_index("field")["group"])
        table = table.dropna(subset="group")
        if name in left_out:
            seen = is_left_out(table, pd.read_parquet(left_out[name]))
            log.info("%d predicted cells of %s are left out, because training has seen them", seen.sum(), name)
            table = table[~seen]
        parts.append(table)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def read_known_mixtures(path: str | os.PathLike[str], of_2018: bool = False) -> pd.DataFrame:
    """Read a table of known mixtures; the arguments are those of ``annotated.read_mixed_fields``.

    Returns ID str, label_a int, fraction_a float, label_b int, fraction_b float, one row per field.
    """
    rows = [(id, *mixed) for id, mixed in read_mixed_fields(path, of_2018).items()]
    return pd.DataFrame(rows, columns=["ID", "label_a", "fraction_a", "label_b", "fraction_b"])


def score_mixtures(fields: pd.DataFrame, mixtures: pd.DataFrame, seed: int) -> dict[str, float]:
    """Return how well inferred fractions of mixed locations agree with the known ones, and with those of other fields.

    A field without cells counts as half and half. Fields without predictions are left out with a warning.

    fields: field, fraction_0..fraction_18 (``pooling.aggregate``)
    mixtures: as ``read_known_mixtures`` returns them

    Returns correlation and mean_absolute_error over fields of the fraction of label_a among the two, the means of both
    over 200 shuffles of fields as shuffled_…, n (fields) and p, the share of orders, shuffled and observed, that
    correlate as well.
    Raises ValueError naming some of the fields if none has predictions.
    """
    row = pd.Index(fields["field"]).get_indexer(pd.Index(mixtures["ID"]))
    if (row < 0).any():
        first = ", ".join(mixtures["ID"][row < 0][:10])
        if (row < 0).all():
            raise ValueError(f"interpretation.mixtures: none of its fields is predicted, such as {first}")
        log.warning("%d fields of interpretation.mixtures are not predicted, and left out: %s", (row < 0).sum(), first)
        mixtures, row = mixtures[row >= 0], row[row >= 0]
    fractions = np.nan_to_num(fields[[f"fraction_{index}" for index in range(N_CLASSES)]].to_numpy(float))[row]
    at = np.arange(len(row))
    a, b = (fractions[at, mixtures[f"label_{side}"].to_numpy(int)] for side in "ab")
    found = np.divide(a, a + b, out=np.full(len(a), 0.5), where=a + b > 0)
    true = (mixtures["fraction_a"] / (mixtures["fraction_a"] + mixtures["fraction_b"])).to_numpy(float)
    generator = np.random.default_rng(seed)
    others = [generator.permutation(true) for _ in range(200)]

    def agreement(known: np.ndarray) -> tuple[float, float]:
        varies = found.std() > 0 and known.std() > 0
        return float(np.corrcoef(found, known)[0, 1]) if varies else 0.0, float(np.abs(found - known).mean())

    correlation, error = agreement(true)
    by_chance = np.array([agreement(other) for other in others])
    chance = by_chance.mean(axis=0)
    # Equal orders, of fractions that repeat, may differ in the last digit.
    as_good = int((by_chance[:, 0] >= correlation - 1e-9).sum())
    return {
        "n": len(row),
        "p": (as_good + 1) / (len(others) + 1),
        "correlation": correlation,
        "mean_absolute_error": error,
        "shuffled_correlation": float(chance[0]),
        "shuffled_mean_absolute_error": float(chance[1]),
    }


def few_shot_spaces(
    features: Mapping[str, np.ndarray], morphology: np.ndarray, random_layer: str, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the spaces of the few-shot experiment: network, CellProfiler and random, each (n, d) float32.

    The first is the embedding of the network that did not see the classes, or of the network if there is none such;
    the last is the best layer with random weights.

    features: ``network/layer`` to (m, d) float32, of all studied cells
    morphology: (m, f) float, of the same cells
    rows: (n,) int, the cells of the experiment
    """
    network = "held_out" if f"held_out/{DEEPEST}" in features else "trained"
    return {
        "network": features[f"{network}/{DEEPEST}"][rows],
        "CellProfiler": morphology[rows],
        "random": features[f"random/{random_layer}"][rows],
    }


def interpret(
    cells: pd.DataFrame,
    network: Path,
    morphology: pd.DataFrame,
    predictions: Mapping[str, Path],
    out: Path,
    settings: InterpretationSettings,
    seed: int,
    mixtures: Mapping[str, float] | None = None,
    left_out: Mapping[str, Path] | None = None,
    processes: int = 1,
) -> list[Claim]:
    """Analyse the answers of the networks, write tables and claims into ``out``, and return the claims.

    The tables are separation.csv, neighbours.parquet, planar.parquet, units.parquet, unit_layers.csv, few_shot.csv,
    claims.md and claims.json.

    cells: a table STUDIED
    network: the folder of ``study.study_networks``
    morphology: CellProfiler features of the chosen cells, in their order
    predictions: the cells.parquet of the collections that can be scored
    mixtures: ``score_mixtures``, or None
    left_out: collection to the table of what its scores leave out; None if it is not known what trained the network
    """
    chosen = chosen_cells(cells)
    with np.load(network / "features.npz") as stored:
        features = {name: stored[name] for name in stored.files}
    with np.load(network / "kernels.npz") as stored:
        kernels = {name: stored[name] for name in stored.files}
    mapped = np.flatnonzero(chosen["mapped"])
    labels, groups = chosen["label"].to_numpy()[mapped], chosen["group"].to_numpy(str)[mapped]
    seen = bool(chosen["seen"].to_numpy()[mapped].any())
    described = morphology.to_numpy(float)

    spaces = {
        (name.split("/")[0], name.split("/")[1]): values[mapped]
        for name, values in features.items()
        if not name.startswith("held_out/")
    }
    scores, singles = score_separation({**spaces, ("CellProfiler", ""): described[mapped]}, labels, groups, seed)
    layers = [layer for name, layer in spaces if name == "trained"]
    planar = []
    # All of UMAP in one process, which compiles it once. It comes first, since it takes longest.
    parts = [("UMAP", layers), *(("t-SNE", [layer]) for layer in layers)]
    jobs = (delayed(planar_maps)([spaces["trained", layer] for layer in own], method, seed) for method, own in parts)
    done = track(in_processes(jobs, processes), len(parts), "parts of the two-dimensional maps")
    for (method, own), maps in zip(parts, done, strict=True):
        for layer, places in zip(own, maps, strict=True):
            planar.append(
                chosen.loc[mapped, ["collection", "field", "cell", "label"]].assign(
                    layer=layer, method=method, x=places[:, 0], y=places[:, 1]
                )
            )

    table = morphology.iloc[mapped].reset_index(drop=True)
    units = {}
    for name in dict.fromkeys(name for name, _ in spaces):
        log.info("units of the network %s", name)
        answers = {layer: spaces[name, layer] for layer in layers}
        units[name] = describe_units(answers, table, labels, groups, settings.permutations, seed)

    knn = scores[(scores["network"] == "random") & (scores["score"] == "knn_accuracy")].set_index("layer")["value"]
    random_layer = str(knn.idxmax()) if knn.notna().any() else layers[0]
    rows = np.flatnonzero(chosen["few_shot"])
    curves = few_shot_curves(
        few_shot_spaces(features, described, random_layer, rows),
        chosen["label"].to_numpy()[rows],
        chosen["group"].to_numpy(str)[rows],
        settings.examples,
        settings.draws,
        seed,
        processes,
    )
    unseen = [NAMES[label] for label in settings.held_out] if f"held_out/{DEEPEST}" in features else []
    judged = min(settings.examples, key=lambda number: abs(number - JUDGED_EXAMPLES))
    claims = [
        *cell_claims(labelled_predictions(cells, predictions, left_out or {}), seed),
        *layer_claims(scores, singles, groups, kernels, DEEPEST, seen, seed),
        *unit_claims(units, seen),
        few_shot_claim(curves, unseen, JUDGED_LEARNER, judged),
        mixture_claim(mixtures),
    ]
    for name, written in (
        ("separation", scores),
        ("unit_layers", pd.concat([found.layers.assign(network=name) for name, found in units.items()])),
        ("few_shot", curves),
    ):
        with atomic_path(out / f"{name}.csv") as temporary:
            written.to_csv(temporary, index=False, float_format="%.6g")
    for name, written in (
        ("neighbours", singles),
        ("planar", pd.concat(planar, ignore_index=True)),
        ("units", pd.concat([found.units.assign(network=name) for name, found in units.items()])),
    ):
        with atomic_path(out / f"{name}.parquet") as temporary:
            written.to_parquet(temporary, index=False)
    write_claims(claims, out, _notes(chosen, mapped, rows, groups, seen, unseen, random_layer, left_out is not None))
    return claims


def _notes(
    chosen: pd.DataFrame,
    mapped: np.ndarray,
    few_shot: np.ndarray,
    groups: np.ndarray,
    seen: bool,
    unseen: Sequence[str],
    random_layer: str,
    checked: bool,
) -> list[str]:
    """Return sentences about what was studied."""
    collections = ", ".join(sorted(chosen.loc[mapped, "collection"].unique()))
    origin = "these cells trained the network." if seen else "none of them trained the network."
    if not checked:
        origin = (
            "the network comes from elsewhere (model.path), and its folder does not say what trained it; none of them "
            "is assumed to have trained it: if they did, every number is too good."
        )
    return [
        f"{len(mapped)} random cells of one known location, of {len(np.unique(groups))} groups (antibodies or "
        f"near-duplicates where known, else fields) of {collections}; " + origin,
        "Neighbours, intervals and shuffles are by group: cells of one field share stain and light.",
        f"Few-shot experiment: {len(few_shot)} cells; "
        + (
            f"{', '.join(unseen)} were held out of a separate training."
            if unseen
            else "the network was trained on these classes."
        )
        + f" Random-weight features are those of their best layer, {random_layer}.",
    ]
