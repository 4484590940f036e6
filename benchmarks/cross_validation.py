"""Cross-validate a configuration by field, and keep one row per setting in a table.

Usage: python benchmarks/cross_validation.py --work FOLDER --name ROW [--configfile FILE] [--root DATA] [--folds 5]
                                             [--set train.epochs=12 …] [--only 0 1 …]

Runs the workflow in FOLDER as far as tiles, examples and the first training, if one is configured; it runs once and
sees no cell of the collection. Then, for each fold, trains on the fields of the other folds and predicts those left
out, with the functions that the rules call. Folds are stratified by label. Every field is predicted once, by a network
that has not seen it. FOLDER/cross_validation.csv gets a row of scores per ROW, FOLDER/folds/ROW.parquet the cells.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import COLOURS, N_CLASSES, NAMES, label_matrix, parse_labels
from hpaloc.config import complete
from hpaloc.evaluation.cells import score_cells
from hpaloc.examples import EXAMPLES, place
from hpaloc.network.calls import lean_on_field
from hpaloc.resampling import share_interval
from hpaloc.tables import to_table, write_table

ROOT = Path(__file__).resolve().parents[1]
PROBABILITIES = [f"p_{index}" for index in range(N_CLASSES)]
FIELD_WEIGHTS = (0.0, 0.5, 0.8, 1.0)


def prepare(arguments: argparse.Namespace, given: dict, config: dict) -> None:
    """Run the workflow in the work folder, with the configuration as changed, as far as the folds share it."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    # Sheets are named relative to the working directory, and the demo's are in the repository.
    (arguments.work / "config").unlink(missing_ok=True)
    (arguments.work / "config").symlink_to(ROOT / "config")
    targets = ["results/dataset/examples.parquet"]
    shards = [f"{shard:03d}" for shard in range(config["collections"][config["train"]["collection"]]["shards"])]
    targets += [f"results/tiles/{config['train']['collection']}/{shard}/green.tfrecord" for shard in shards]
    if config["train"]["pretraining"]:
        targets.append("results/pretraining/model/model.keras")
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", "."]
    # The folds divide the examples, so nothing may be set aside before.
    given = {**given, "curation": {**given.get("curation", {}), "validation_fraction": 0.0}}
    (arguments.work / "config.yaml").write_text(yaml.safe_dump(given))
    command += ["--cores", "all", *targets, "--configfile", "config.yaml"]
    subprocess.run(command, check=True, cwd=arguments.work)


def run_fold(work: Path, config: dict, examples: pd.DataFrame, held_out: set[str], folder: Path) -> pd.DataFrame:
    """Train on the fields not held out, predict those held out; return their cells."""
    from hpaloc.network.inference import averaged
    from hpaloc.network.loading import load_folder
    from hpaloc.records import training_dataset, write_dataset
    from hpaloc.training.settings import TrainSettings
    from hpaloc.training.train import train_model

    left_out = examples["field"].isin(held_out)
    kept = examples[~left_out | (examples["copy"] == 0)]
    parts = kept.assign(part=np.where(kept["field"].isin(held_out), "validation", "train"))
    table = place(parts, np.random.default_rng(config["seed"]))
    folder.mkdir(parents=True)
    write_table(folder / "examples.parquet", to_table(table, EXAMPLES))
    write_table(folder / "train.parquet", to_table(table[table["part"] == "train"], EXAMPLES))
    tiles = work / "results/tiles" / config["train"]["collection"]
    paths = {colour: sorted(tiles.glob(f"*/{colour}.tfrecord")) for colour in COLOURS}
    write_dataset(folder / "examples.parquet", paths, {part: folder / part for part in ("train", "validation")}, 2)
    settings = TrainSettings(
        **{key: config["train"][key] for key in config["train"].keys() - {"pretraining", "blends"}}
    )
    if config["train"]["pretraining"]:
        settings = replace(settings, weights=str(work / "results/pretraining/model/model.keras"))
    train_model(folder, folder / "train.parquet", folder / "model", settings, config["seed"])
    network, _, _ = load_folder(folder / "model")
    forward = averaged(network, config["predict"]["views"])
    data = training_dataset(folder / "validation", table, settings.channels, settings.input_size)
    found = np.concatenate([forward(images)[0].numpy() for images, _, _ in data.batch(64)])
    cells = table[table["part"] == "validation"].sort_values(["record_shard", "position"])
    cells = cells[["field", "cell", "labels"]].reset_index(drop=True)
    shutil.rmtree(folder)
    return pd.concat([cells, pd.DataFrame(found, columns=PROBABILITIES)], axis=1)


def scores(cells: pd.DataFrame) -> dict[str, float]:
    """Return the scores of out-of-fold cells: alone, and with the evidence of their field."""
    p = cells[PROBABILITIES].to_numpy(float)
    truth = cells["labels"].astype(int).to_numpy()
    row: dict[str, float] = {"cells": len(cells), "fields": cells["field"].nunique()}
    alone = score_cells(p, label_matrix([(label,) for label in truth]), cells["field"].to_numpy())
    row |= {"accuracy": alone["accuracy"], "low": alone["ci95"]["accuracy"][0], "high": alone["ci95"]["accuracy"][1]}
    row["balanced_accuracy"] = alone["balanced_accuracy"]
    called = p.argmax(1)
    for label in np.unique(truth):
        row[NAMES[label]] = float((called[truth == label] == label).mean())
    fields = pd.DataFrame(p).groupby(cells["field"].to_numpy()).mean()
    of_field = cells.groupby("field")["labels"].first().astype(int).loc[fields.index].to_numpy()
    right = fields.to_numpy().argmax(1) == of_field
    row["field_accuracy"] = float(right.mean())
    low, high = share_interval(right, fields.index.to_numpy()) or (np.nan, np.nan)
    row |= {"field_low": low, "field_high": high}
    for weight in FIELD_WEIGHTS[1:]:
        drawn = lean_on_field(p, cells["field"].tolist(), weight).argmax(1)
        row[f"field_weight_{weight}"] = float((drawn == truth).mean())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--configfile", type=Path, default=ROOT / "config/hpa-cells-5.yaml")
    parser.add_argument("--root", type=Path, default=ROOT.parent / "shared/data/hpa-cells-5")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    given = yaml.safe_load(arguments.configfile.read_text())
    given["root"] = str(arguments.root)
    for change in arguments.set:
        key, value = change.split("=", 1)
        *path, last = key.split(".")
        section = given
        for name in path:
            section = section.setdefault(name, {})
        section[last] = yaml.safe_load(value)
    config = complete(given)
    prepare(arguments, given, config)
    examples = pd.read_parquet(arguments.work / "results/dataset/examples.parquet")
    labels = examples.groupby("field")["labels"].first()
    splitter = StratifiedKFold(arguments.folds, shuffle=True, random_state=config["seed"])
    classes = [parse_labels(text)[0] for text in labels]
    started, parts = time.monotonic(), []
    for fold, (_, test) in enumerate(splitter.split(labels.index, classes)):
        if arguments.only is None or fold in arguments.only:
            held_out = set(labels.index[test])
            folder = arguments.work / "folds" / f"{arguments.name}-{fold}"
            shutil.rmtree(folder, ignore_errors=True)
            parts.append(run_fold(arguments.work, config, examples, held_out, folder))
            parts[-1].to_parquet(folder.with_suffix(".parquet"))
            print(fold, json.dumps(scores(parts[-1])), flush=True)
    cells = pd.concat(parts, ignore_index=True)
    cells.to_parquet(arguments.work / "folds" / f"{arguments.name}.parquet")
    row = {"name": arguments.name, "settings": " ".join(arguments.set)} | scores(cells)
    row["minutes"] = (time.monotonic() - started) / 60
    table = arguments.work / "cross_validation.csv"
    rows = pd.read_csv(table) if table.is_file() else pd.DataFrame()
    rows = pd.concat([rows[rows["name"] != arguments.name] if len(rows) else rows, pd.DataFrame([row])])
    rows.to_csv(table, index=False, float_format="%.4g")
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
