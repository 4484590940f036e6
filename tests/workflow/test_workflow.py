"""The whole chain on a small scale: simulated training fields, 16-bit TIFF test fields with truth per cell."""

import base64
import csv
import json
import os
import shutil
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco
from workflow_runs import ROOT, planned, read_rows, snakemake, write_config, write_field, write_sheet

from hpaloc.classes import COLOURS, format_labels
from hpaloc.finding import shard_of
from hpaloc.masks import mask_path, read_mask, write_mask
from hpaloc.network.loading import load_folder
from hpaloc.tfrecord import decode_example, read_records
from hpaloc.unpacking import unpack_model

DATA = ROOT.parent / "shared" / "data" / "hpa-2021"

TRAINING = ["0", "0", "14", "14", "2", "2", "0|14", "18"]
TEST = [(0,), (14,), (2, 0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of everything: 8 simulated training fields, 3 test fields, one of them unreadable."""
    folder = tmp_path_factory.mktemp("run")
    write_sheet(
        folder / "train.csv",
        [{"ID": f"train-{i}", "Label": labels, "antibody": f"antibody-{i}"} for i, labels in enumerate(TRAINING)],
    )
    (folder / "images").mkdir()
    truth = []
    for i, labels in enumerate(TEST):
        field = write_field(folder / "images", f"test-{i}", labels, seed=5, suffix=".tif", dtype="uint16")
        write_mask(folder / "images" / f"test-{i}_truth.png", field.cells)
        truth += [
            {"ID": f"test-{i}", "cell": cell, "Label": "|".join(map(str, of_cell))} for cell, of_cell in field.truth
        ]
    for colour in COLOURS:
        (folder / "images" / f"broken_{colour}.tif").write_bytes(b"II*\0 no image")
    write_sheet(folder / "cells.csv", truth)
    rows = [{"ID": f"test-{i}", "Label": format_labels(labels)} for i, labels in enumerate(TEST)]
    write_sheet(folder / "test.csv", [*rows, {"ID": "broken", "Label": "4"}])
    write_config(
        folder / "config.yaml",
        collections={
            "train": {"sheet": "train.csv", "labels": True, "simulate": {"shape": [512, 512]}},
            "first": {
                "sheet": "train.csv",
                "labels": True,
                "shards": 1,
                "simulate": {"shape": [512, 512], "density": 0.7},
            },
            "test": {
                "sheet": "test.csv",
                "images": ["images/{id}_{colour}.png", "images/{id}_{colour}.tif"],
                "labels": True,
                "truth": {"cells": "cells.csv", "masks": "images/{id}_truth.png"},
            },
        },
        shards=2,
        pixel_size=0.16,
        max_rejected_fraction=0.5,
        curation={"labels": "all", "validation_fraction": 0.25},
        train={"input_size": 32, "epochs": 1, "batch_size": 16, "pretraining": {"collection": "first", "epochs": 1}},
        evaluation={"controls": ["shuffled_labels"]},
        predict={"views": 2},
    )
    snakemake(folder)
    return folder


def cells_of(folder, collection):
    """Return the set of (field, cell) in the masks, in the cell tables, in the tiles' tables and in the predictions."""
    masks = set()
    for shard in (folder / "results/segmentation" / collection).iterdir():
        for row in pd.read_parquet(shard / "fields.parquet").itertuples():
            if row.status == "ok":
                ids = np.unique(read_mask(mask_path(shard, row.field, "cell")))
                masks |= {(row.field, int(cell)) for cell in ids if cell}
                nuclei = np.unique(read_mask(mask_path(shard, row.field, "nucleus")))
                assert set(nuclei) <= set(ids) | {0}
    tables = [
        pd.read_parquet(path)
        for path in sorted((folder / "results/cells" / collection).glob("*.parquet"))
        if not path.name.endswith(".fields.parquet")
    ]
    tiled = [pair for table in tables for pair in zip(table["field"], table["cell"].tolist(), strict=True)]
    predictions = pd.read_parquet(folder / "results/predictions" / collection / "cells.parquet")
    predicted = list(zip(predictions["field"], predictions["cell"].tolist(), strict=True))
    assert len(set(tiled)) == len(tiled)
    assert len(set(predicted)) == len(predicted)
    return masks, set(tiled), set(predicted)


def test_everything_that_was_promised_is_there(folder):
    for name in (
        "report.zip",
        "model/model.keras",
        "model/card.md",
        "predictions/test/cells.parquet",
        "predictions/test/fields.parquet",
        "predictions/test/submission.csv",
        "predictions/test/cells.h5ad",
        "evaluation/metrics.json",
        "dataset/summary.json",
        "browser/index.html",
        "browser/test/table.js",
        "run/software.csv",
        "figures/figure1_labels.svg",
        "figures/figure7a_loss.png",
    ):
        assert (folder / "results" / name).stat().st_size > 0, name
    archive = zipfile.ZipFile(folder / "results/report.zip")
    assert archive.testzip() is None
    assert "report/report.html" in archive.namelist()


def test_no_half_written_file_is_left(folder):
    hidden = [path.name for path in (folder / "results").rglob(".*")]
    # Snakemake's own note of when a folder was made.
    assert set(hidden) <= {".snakemake_timestamp"}


def test_a_second_run_has_nothing_to_do(folder):
    assert "Nothing to be done" in snakemake(folder).stdout


def test_cells_are_conserved(folder):
    masks, tiled, predicted = cells_of(folder, "test")
    assert masks
    assert masks == tiled == predicted


def test_tiles_hold_the_cells_of_the_table_in_each_colour(folder):
    for path in (folder / "results/tiles").glob("*/*"):
        table = pd.read_parquet(folder / "results/cells" / path.parent.name / f"{path.name}.parquet")
        expected = list(zip(table["field"], table["cell"].tolist(), strict=True))
        for colour in COLOURS:
            tiles = [decode_example(record) for record in read_records(path / f"{colour}.tfrecord")]
            assert [(tile["field"].decode(), tile["cell"]) for tile in tiles] == expected


def test_an_unreadable_field_is_listed_and_the_rest_goes_on(folder):
    rejected = read_rows(folder / "results/sheet/rejected.csv")
    assert [(row["collection"], row["field"], row["stage"]) for row in rejected] == [("test", "broken", "segment")]
    assert "broken_" in rejected[0]["reason"]
    fields = pd.read_parquet(folder / "results/predictions/test/fields.parquet")
    assert set(fields["field"]) == {"test-0", "test-1", "test-2", "broken"}


def test_the_submission_decodes_to_the_masks(folder):
    csv.field_size_limit(2**27)
    rows = {row["ID"]: row for row in read_rows(folder / "results/predictions/test/submission.csv")}
    assert set(rows) == {"test-0", "test-1", "test-2", "broken"}
    assert rows["broken"]["PredictionString"] == ""
    shard = shard_of("test-0", 2)
    labels = read_mask(mask_path(folder / "results/segmentation/test" / shard, "test-0", "cell"))
    words = rows["test-0"]["PredictionString"].split(" ")
    assert len(words) == 3 * 19 * labels.max()
    areas = set()
    for name, confidence, text in zip(words[::3], words[1::3], words[2::3], strict=True):
        assert 0 <= int(name) < 19
        assert 0 <= float(confidence) <= 1
        counts = zlib.decompress(base64.b64decode(text))
        areas.add(int(coco.area({"counts": counts, "size": list(labels.shape)})))
    assert areas == set(np.bincount(labels.ravel())[1:].tolist())


def test_scores_are_of_the_true_cells(folder):
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())["test"]
    assert metrics["n_fields"] >= 3
    assert 0 <= metrics["cells"]["accuracy"] <= 1
    assert metrics["segmentation"]["f1_60"] > 0.5
    assert set(metrics["map60"]) == {"absent_is_false_positive", "absent_ignored"}


def test_the_browser_shows_the_truth_of_the_cells(folder):
    assert '\\"truth_is\\":\\"cells\\"' in (folder / "results/browser/test/table.js").read_text()


def test_a_changed_image_lists_its_shard_and_what_depends_on_it(folder):
    path = folder / "images/test-1_green.tif"
    before = path.read_bytes()
    try:
        shutil.copy(folder / "images/test-0_green.tif", path)
        jobs, shards = planned(folder)
        shard = f"collection=test, shard={shard_of('test-1', 2)}"
        assert shards == {rule: {shard} for rule in ("segment", "tile", "measure_baselines", "predict", "browse_shard")}
        for rule in (
            "aggregate",
            "submit",
            "evaluate",
            "draw_scores",
            "browse",
            "sheet",
            "rejected",
            "record_run",
            "report_zip",
        ):
            assert jobs[rule] == 1, rule
        for rule in ("simulate", "train", "curate", "records", "training_curves"):
            assert jobs[rule] == 0, rule
    finally:
        path.write_bytes(before)
        snakemake(folder, "--touch")
        snakemake(folder)


def test_a_changed_training_key_reruns_no_segmentation(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "other.yaml").write_text(text.replace("epochs: 1", "epochs: 2"))
    jobs, _ = planned(folder, config="other.yaml")
    assert jobs["train"] == 1
    assert jobs["predict"] == 2
    assert not {"segment", "tile", "curate", "records"} & set(jobs)


def test_a_changed_limit_or_device_reruns_nothing(folder):
    text = (folder / "config.yaml").read_text()
    others = "\ndask: {chunk_above: 9000}\nsegmentation: {device: cpu}"
    text = text.replace("max_rejected_fraction: 0.5", f"max_rejected_fraction: 0.6{others}")
    (folder / "other.yaml").write_text(text.replace("batch_size: 16", "batch_size: 16\n  gpu: none"))
    jobs, _ = planned(folder, config="other.yaml")
    assert not set(jobs) - {"record_run", "report_zip", "all"}


def test_a_packed_model_is_the_one_that_was_trained_and_scored(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "packing.yaml").write_text(f"{text}\nmodel: {{images_licence: CC0}}\n")
    jobs, _ = planned(folder, "pack_model", config="packing.yaml")
    assert set(jobs) == {"pack_model"}
    snakemake(folder, "pack_model", config="packing.yaml")
    with zipfile.ZipFile(folder / "results/model.zip") as archive:
        card, scores = (archive.read(f"model/{name}").decode() for name in ("card.md", "scores.json"))
    assert card.startswith((folder / "results/model/card.md").read_text())
    assert "| test | cell | accuracy |" in card
    assert "\ntest: the network " in card
    assert json.loads(scores) == json.loads((folder / "results/evaluation/metrics.json").read_text())
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    unpack_model(folder / "results/model.zip", unpacked, "model.zip")
    (_, _, decision), (_, _, trained) = load_folder(unpacked), load_folder(folder / "results/model")
    assert decision == trained
    assert (unpacked / "model.keras").read_bytes() == (folder / "results/model/model.keras").read_bytes()


def test_predict_only_trains_nothing(folder):
    config = {
        "collections": {
            "new": {"sheet": "new.csv", "images": "images/{id}_{colour}.tif"},
            # There, and changed, but nothing to train on where a model is named.
            "train": {"sheet": "train.csv", "labels": True, "simulate": {"shape": [256, 256]}},
        },
        "shards": 1,
        "pixel_size": 0.16,
        "predict": {"views": 1},
        "model": {"path": "results/model"},
    }
    write_config(folder / "new.yaml", **config)
    write_sheet(folder / "new.csv", [{"ID": "test-2"}])
    before = (folder / "results/model/model.keras").stat().st_mtime_ns
    jobs, _ = planned(folder, "predict_only", config="new.yaml")
    # Nor are fields of a collection that is not predicted made for the figures.
    assert not {"train", "curate", "records", "simulate"} & set(jobs)
    printed = snakemake(folder, "predict_only", config="new.yaml").stdout
    # The scores, the record and the report of the run before do not pass for those of this one.
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())
    assert metrics["unscored"] == "nothing is scored: no collection that is predicted (new) has labels (labels: true)"
    assert metrics["unscored"] in printed.splitlines()
    assert "path: results/model" in (folder / "results/run/config.yaml").read_text()
    left = pd.read_csv(folder / "results/run/left_over.csv")["path"]
    assert {"results/predictions/test", "results/evaluation/test", "results/dataset"} <= set(left)
    assert "results/model" not in set(left)
    names = zipfile.ZipFile(folder / "results/report.zip").namelist()
    assert not [name for name in names if name.endswith(("confusion.svg", "figure7a_loss.svg"))]
    assert [name for name in names if name.endswith("left_over.csv")]
    masks, tiled, predicted = cells_of(folder, "new")
    assert masks
    assert masks == tiled == predicted
    assert (folder / "results/model/model.keras").stat().st_mtime_ns == before


def test_a_few_labelled_cells_label_the_others(folder):
    cells = pd.read_parquet(folder / "results/predictions/test/cells.parquet")
    some = cells.groupby("field").head(3)
    some[["field", "cell"]].assign(label=np.where(some["field"] == "test-0", "mine", "other")).to_csv(
        folder / "few.csv", index=False
    )
    (folder / "few.yaml").write_text((folder / "config.yaml").read_text() + "few_shot: {table: few.csv}\n")
    snakemake(folder, "few_shot", config="few.yaml")
    found = pd.read_parquet(folder / "results/few_shot/test/cells.parquet")
    assert found[["field", "cell"]].equals(cells[["field", "cell"]])
    assert set(found["label"]) <= {"mine", "other"}
    assert found["given"].sum() == len(some)
    made_with = json.loads((folder / "results/few_shot/test/settings.json").read_text())
    assert (made_with["few_shot.table"], made_with["few_shot.learner"]) == ("few.csv", "logistic_regression")
    (folder / "few.csv").write_text("field,cell,label\ntest-0,1,mine\nnowhere,1,other\n")
    done = snakemake(folder, "few_shot", config="few.yaml", check=False)
    assert done.returncode != 0
    assert (
        "examples few.csv: 1 of its 2 fields is not in the sheet of collection test and is ignored: nowhere"
        in done.stdout
    )
    assert "few_shot.table: at least two labels are needed, found 1" in done.stdout


def test_the_network_is_interpreted_and_its_claims_judged(folder):
    settings = "{held_out: [0, 14], cells: 50, permutations: 19, fields: 1, epochs: 1, examples: [1, 2], draws: 2}"
    (folder / "study.yaml").write_text(f"{(folder / 'config.yaml').read_text()}interpretation: {settings}\n")
    snakemake(folder, "interpret", config="study.yaml")
    results = folder / "results/interpretation"
    cells = pd.read_parquet(results / "cells.parquet")
    assert {"train", "test"} >= set(cells["collection"]) >= {"test"}
    assert not cells.loc[cells["mapped"], "seen"].any()
    assert set(cells.loc[cells["few_shot"], "label"]) == {0, 14}
    # With a first training it is that one that is done without the classes: nothing of their groups is left.
    first = pd.read_parquet(folder / "results/pretraining/examples.parquet")
    left = pd.read_parquet(folder / "results/held_out/examples.parquet")
    held = first[["label_0", "label_14"]].to_numpy().any(axis=1)
    kept = first[~first["group"].isin(first.loc[held, "group"])]
    assert held.any()
    # What it is taught is what the simulation drew in each cell, not the labels of the field.
    assert set(first.loc[first["field"] == "train-6", "labels"]) - {"18"} != {"0|14"}
    assert set(left["key"]) == set(kept["key"])
    history = pd.read_csv(folder / "results/held_out/model/history.csv")
    assert len(history) == 1
    # Each network has its place in the tables, and the one of the experiment in that alone.
    scores = pd.read_csv(results / "separation.csv", keep_default_na=False)
    assert set(scores["network"]) == {"trained", "random", "shuffled_labels", "CellProfiler"}
    curves = pd.read_csv(results / "few_shot.csv")
    assert set(curves["features"]) == {"network", "CellProfiler", "random"}
    assert set(curves["draw"]) == {0, 1}
    claims = {claim["claim"]: claim for claim in json.loads((results / "claims.json").read_text())}
    assert len(claims) == 8
    assert json.loads((results / "settings.json").read_text())["interpretation.held_out"] == [0, 14]
    assert {claim["verdict"] for claim in claims.values()} <= {"holds", "failed", "cannot be tested"}
    transfer = claims["features transfer to unseen locations with few examples"]
    assert "none of which the network was trained on" in transfer["sentence"]
    judged = curves[(curves["learner"] == "logistic_regression") & (curves["examples"] == 2)]
    means = judged.groupby("features")["balanced_accuracy"].mean()
    hardest = means.drop("network").max()
    assert (transfer["value"], transfer["control"]) == pytest.approx((means["network"], hardest), abs=1e-5)
    page = (results / "claims.md").read_text()
    assert all(claim["sentence"] in page for claim in claims.values())
    units = pd.read_parquet(results / "units.parquet")
    assert units.groupby("network").size().to_dict() == dict.fromkeys(("trained", "random", "shuffled_labels"), 4416)
    for name in ("patches_stem", "planar", "separation", "units", "activation_maps", "few_shot"):
        assert (results / f"{name}.png").stat().st_size > 0
    assert "Nothing to be done" in snakemake(folder, "interpret", config="study.yaml").stdout


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_real_fields_are_explored_and_predicted(folder):
    ids = sorted({path.name.rsplit("_", 1)[0] for path in (DATA / "images").glob("*.png")})
    write_sheet(folder / "real.csv", [row for row in read_rows(DATA / "train.csv") if row["ID"] in ids])
    write_config(
        folder / "real.yaml",
        root=os.fspath(DATA),
        collections={"hpa": {"sheet": "real.csv", "images": "{root}/images/{id}_{colour}.png", "labels": True}},
        shards=1,
        predict={"collections": ["hpa"], "views": 1},
        model={"path": "results/model"},
    )
    outcomes = ("browser/index.html", "predictions/hpa/submission.csv", "evaluation/metrics.json")
    snakemake(folder, "explore", *(f"results/{name}" for name in outcomes), config="real.yaml")
    # Labels of a field are not shown as the truth of its cells.
    assert '\\"truth_is\\":\\"fields\\"' in (folder / "results/browser/hpa/table.js").read_text()
    masks, tiled, predicted = cells_of(folder, "hpa")
    assert len(masks) >= 60
    assert masks == tiled == predicted
    submission = pd.read_csv(folder / "results/predictions/hpa/submission.csv").set_index("ID")
    assert sorted(submission.index) == ids
    for id, row in submission.iterrows():
        words = row["PredictionString"].split(" ")
        size = [row["ImageHeight"], row["ImageWidth"]]
        for text in words[2::57]:
            counts = zlib.decompress(base64.b64decode(text))
            assert 0 < coco.area({"counts": counts, "size": size}) < size[0] * size[1], id
