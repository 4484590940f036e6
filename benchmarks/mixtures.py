"""Infer the fractions of two mixed locations with a model folder, and compare them with the known ones.

Usage: python benchmarks/mixtures.py --model results/model --work FOLDER [--root DATA]

Runs the target `predict_only` on the fields of DATA (mixtures.csv: ID, label_a, fraction_a, label_b, fraction_b, and
images/{id}_{colour}.jpg) in FOLDER, reads the fractions from its fields.parquet, prints the correlation and the mean
absolute error, overall and for each pair of locations, and draws FOLDER/mixtures.svg and .png.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import NAMES
from hpaloc.figures.style import BLUE, GREEN, NARROW, ORANGE, SKY, new_figure
from hpaloc.mixtures.fractions import FRACTIONS

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=ROOT.parent / "shared/data/hpa-mixtures")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    config = {
        "collections": {
            "mixtures": {
                "sheet": str(arguments.root / "mixtures.csv"),
                "images": str(arguments.root / "images/{id}_{colour}.jpg"),
                "shards": 2,
            }
        },
        "curation": {"drop_border_cells": False},
        "model": {"path": str(arguments.model.resolve())},
    }
    (arguments.work / "mixtures.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "predict_only", "--snakefile", ROOT / "Snakefile", "--cores", "all"]
    subprocess.run([*command, "--configfile", "mixtures.yaml"], check=True, cwd=arguments.work)
    fields = pd.read_parquet(arguments.work / "results/predictions/mixtures/fields.parquet")
    table = compare_fractions(fields, pd.read_csv(arguments.root / "mixtures.csv", dtype={"ID": str}))
    table["error"] = (table["found"] - table["true"]).abs()
    print(table.groupby("pair")["error"].mean().round(3).to_string())
    correlation, error = table["found"].corr(table["true"]), table["error"].mean()
    print(f"correlation {correlation:.3f}, mean absolute error {error:.3f} ({len(table)} values)")
    draw_mixtures(table, arguments.work / "mixtures")


def compare_fractions(fields: pd.DataFrame, mixtures: pd.DataFrame) -> pd.DataFrame:
    """List the inferred and the known fractions of locations in fields of mixed proteins.

    A field without cells counts as found 0 and 0.

    fields: field, fraction_0..fraction_18 (``pooling.aggregate`` with prototypes)
    mixtures: ID, label_a, fraction_a, label_b, fraction_b, one row per field

    Returns one row for each field and each of its two locations: field, pair, location, true, found.
    Raises ValueError naming a mixed field that is not in ``fields``.
    """
    row = pd.Index(fields["field"]).get_indexer(pd.Index(mixtures["ID"]))
    if (row < 0).any():
        raise ValueError(f"field {mixtures['ID'].iloc[int(row.argmin())]}: is mixed, but is not among the fields")
    fractions = np.nan_to_num(fields[list(FRACTIONS)].to_numpy(np.float64))
    pairs = zip(mixtures["label_a"], mixtures["label_b"], strict=True)
    named = pd.DataFrame({"field": mixtures["ID"], "pair": [f"{NAMES[a]} + {NAMES[b]}" for a, b in pairs]})
    sides = [
        named.assign(
            location=mixtures[f"label_{side}"],
            true=mixtures[f"fraction_{side}"],
            found=fractions[row, mixtures[f"label_{side}"]],
        )
        for side in ("a", "b")
    ]
    return pd.concat(sides).sort_index(kind="stable").reset_index(drop=True)


def draw_mixtures(table: pd.DataFrame, stem: Path) -> None:
    """Draw inferred against true fractions of locations; each mixture has its colour and marker."""
    true, found, names = (table[column].to_numpy() for column in ("true", "found", "pair"))
    with new_figure(stem, NARROW, 3.3) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        looks = zip(dict.fromkeys(names.tolist()), _looks(), strict=False)
        for name, (colour, marker) in looks:
            rows = names == name
            axes.plot(
                true[rows],
                found[rows],
                marker,
                color=colour,
                markersize=4.5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                alpha=0.9,
                label=name,
            )
        error = float(np.mean(np.abs(true - found)))
        r = float(np.corrcoef(true, found)[0, 1]) if len(true) > 1 else float("nan")
        axes.set_title(f"r = {r:.3f}, mean absolute error {error:.3f}, n = {len(true)}", fontsize=7.5)
        axes.set_xlabel("True fraction")
        axes.set_ylabel("Inferred fraction")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        axes.legend(loc="upper left", fontsize=6)


def _looks() -> Iterator[tuple[str, str]]:
    for marker in "osD^v":
        for colour in (BLUE, ORANGE, GREEN, SKY, "#CC79A7", "#E69F00"):
            yield colour, marker


if __name__ == "__main__":
    main()
