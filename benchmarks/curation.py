"""Measure the effect of each filter and source of negatives, on the demo with its truth and on a folder of real fields.

usage: python benchmarks/curation.py WORK [--real FOLDER] [--synthetic 0.05] [--threads 1]

Takes the training fields of config/config.yaml and those of FOLDER (train.csv, and images/{id}_{colour}.* of any kind),
segments and tiles them into WORK, and curates the cells in the mode `single`: the demo by its own configuration and by
the defaults, the real fields by the defaults. What is already in WORK is not made again. Prints the tables of
docs/data.md, and ends with an error if a field, an antibody or a pair of near-duplicates is in both parts.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.curation import FILTERS, CurationSettings, NegativeSettings, curate
from hpaloc.examples import PARTS
from hpaloc.finding import format_manifests
from hpaloc.grouping import near_duplicates
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import ManifestRow
from hpaloc.matching import read_true_labels
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.sheet import read_sheet
from hpaloc.simulate.shard import simulate_shard
from hpaloc.tables import REFERENCE_COLOURS
from hpaloc.tiles import tile_shard

ROOT = Path(__file__).resolve().parents[1]


def demo_fields(work, config, threads):
    """Simulate the training fields of the demo; return their rows."""
    collection = config["collections"]["train"]
    images = work / "images"
    rows = [
        ManifestRow(
            **asdict(row),
            seed=config["seed"],
            paths={colour: str(images / f"{row.id}_{colour}.png") for colour in COLOURS},
        )
        for row in read_sheet(ROOT / collection["sheet"], labels=True, pixel_size=config["pixel_size"])
    ]
    if not (images / "cells.csv").exists():
        simulate_shard(rows, images, **collection["simulate"], threads=threads)
    return rows


def real_fields(folder):
    """Return the rows of a folder of fields."""
    rows = []
    for row in read_sheet(folder / "train.csv", labels=True):
        found = {colour: sorted((folder / "images").glob(f"{row.id}_{colour}.*")) for colour in COLOURS}
        rows.append(ManifestRow(**asdict(row), paths={colour: str(paths[0]) for colour, paths in found.items()}))
    return rows


def measured(rows, work, config, threads):
    """Segment and tile the fields as one shard; return the tables of cells and fields."""
    cells, fields = work / "cells.parquet", work / "fields.parquet"
    if not fields.exists():
        masks = work / "segmentation"
        if not (masks / "fields.parquet").exists():
            settings = SegmentationSettings(**config["segmentation"])
            segment_shard(rows, masks, settings, DaskSettings(**config["dask"]), threads, 2000 * threads, 1.0)
        tiles = {colour: work / f"{colour}.tfrecord" for colour in COLOURS}
        tile_shard(rows, masks, cells, fields, tiles, threads=threads, max_rejected_fraction=1.0)
    annotations = work / "annotations.csv"
    annotations.write_text(format_manifests(rows, [{}] * len(rows), 1)["000.annotations.csv"])
    return read_cells([cells], [annotations]), read_fields([fields], [annotations])


def torn(examples, fields):
    """Count what is in both parts: fields, antibodies, pairs of near-duplicates (found anew, without the groups)."""
    part = examples.groupby("field")["part"].agg(set)
    antibodies = part.groupby(fields.set_index("field")["antibody"]).agg(lambda parts: set.union(*parts))
    used = fields[fields["field"].isin(part.index)]
    pairs = near_duplicates(used[[f"hash_{colour}" for colour in REFERENCE_COLOURS]].to_numpy(np.uint64))
    names = used["field"].to_numpy()[pairs]
    return {
        "fields": sum(len(parts) > 1 for parts in part),
        "antibodies": sum(len(parts) > 1 for parts in antibodies),
        "near-duplicate pairs": sum(part[one] != part[other] for one, other in names),
    }


def nearest(fields):
    """Return in how many bits of their hashes the two most similar fields differ."""
    hashes = fields[[f"hash_{colour}" for colour in REFERENCE_COLOURS]].dropna().to_numpy(np.uint64)
    return next(bits for bits in range(hashes.shape[1] * 64 + 1) if len(near_duplicates(hashes, bits)))


def column(cells, fields, settings, seed):
    """Curate; return the examples, the cells left out, and a column of the table."""
    examples, summary, left_out = curate(cells, fields, settings, seed)
    negatives, split = summary["negatives"], summary["split"]
    found = {"cells": summary["cells"], "several labels": summary["unlabelled"]["several_labels"]}
    for name in FILTERS:
        counts = summary["filters"][name]
        found[f"removed by `{name}` (failing)"] = f"{counts['removed']} ({counts['failing']})"
    found["of Negative fields"] = negatives["negative_fields"]
    found["relabelled by low green (candidates)"] = f"{negatives['low_green']} ({negatives['low_green_candidates']})"
    found["synthetic"] = negatives["synthetic"]
    for what, counts in (
        ("examples", summary["examples"]),
        ("fields", split["fields"]),
        ("groups", split["groups_of_part"]),
    ):
        found[f"{what} in train / validation"] = " / ".join(str(counts[part]) for part in PARTS)
    found["near-duplicate pairs"] = split["duplicate_pairs"]
    found["bits between the two nearest fields"] = nearest(fields)
    in_both = torn(examples, fields)
    if any(in_both.values()):
        raise SystemExit(f"in both parts: {in_both}")
    found["fields, antibodies or near-duplicates in both parts"] = sum(in_both.values())
    return examples, left_out, {name: str(value) for name, value in found.items()}


def by_truth(cells, examples, left_out, truth):
    """Say of the demo's cells, by their truth, how many of those relabelled, removed and kept are negative."""
    true = truth.set_index(["field", "cell"])["labels"]

    def negative(table):
        found = true.reindex(pd.MultiIndex.from_frame(table[["field", "cell"]].astype({"cell": int}))).dropna()
        return f"{int((found == '18').sum())} of {len(found)}"

    real = examples[(examples["origin"] == "real") & (examples["copy"] == 0) & (examples["labels"] != "18")]
    positive = cells[(cells["labels"] != "18") & ~cells["labels"].str.contains("|", regex=False)]
    dark = positive["green_signal"] < 1
    return {
        "below the green threshold, in positive one-label fields": negative(positive[dark]),
        "above it": negative(positive[~dark]),
        "relabelled": negative(examples[examples["origin"] == "relabelled"]),
        "removed by `green_signal`": negative(left_out[left_out["reason"] == "green_signal"]),
        "kept as positive": negative(real),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--synthetic", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    config = complete(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    seed = config["seed"]
    defaults = CurationSettings(negatives=NegativeSettings(synthetic_fraction=arguments.synthetic))

    demo = arguments.work / "demo"
    cells, fields = measured(demo_fields(demo, config, arguments.threads), demo, config, arguments.threads)
    columns = {}
    own = CurationSettings(**config["curation"])
    examples, left_out, columns["demo, its configuration"] = column(cells, fields, own, seed)
    images = demo / "images"
    files = CollectionFiles("demo", ["000"], [images / "cells.csv"], str(images / "{id}_cellmask.png"))
    negative = by_truth(cells, examples, left_out, read_true_labels(cells, fields, files))
    demo_table = fields
    columns["demo, defaults"] = column(cells, fields, defaults, seed)[2]
    if arguments.real is not None:
        work = arguments.work / arguments.real.name
        cells, fields = measured(real_fields(arguments.real), work, config, arguments.threads)
        columns[f"{arguments.real.name}, defaults"] = column(cells, fields, defaults, seed)[2]

    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in columns["demo, defaults"]:
        print(f"| {name} | {' | '.join(of_column[name] for of_column in columns.values())} |")
    white = demo_table["green_white"].groupby(demo_table["labels"] == "18").agg(["min", "mean", "max"])
    print(f"\nwhite of green in the demo, True for Negative fields:\n{white.round().to_string()}")
    print("\n| cells of the demo | negative by its truth |\n|---|---|")
    for name, count in negative.items():
        print(f"| {name} | {count} |")


if __name__ == "__main__":
    main()
