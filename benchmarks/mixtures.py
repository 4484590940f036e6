"""Infer the fractions of two mixed locations with a model folder, and hold them against the known ones.

Usage: python benchmarks/mixtures.py --model results/model --work FOLDER [--root DATA]

Runs the target `predict_only` on the fields of DATA (mixtures.csv: ID, label_a, fraction_a, label_b, fraction_b, and
images/{id}_{colour}.jpg) in FOLDER, reads the fractions from its fields.parquet, prints the correlation and the mean
absolute error over all and per pair of locations, and draws FOLDER/mixtures.svg and .png.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.figures.mixtures import mixtures
from hpaloc.mixtures.known import compare_fractions

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
    mixtures(table["true"].to_numpy(), table["found"].to_numpy(), table["pair"].tolist(), arguments.work / "mixtures")


if __name__ == "__main__":
    main()
