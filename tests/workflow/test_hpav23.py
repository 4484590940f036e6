"""The benchmark HPAv23 by one command, on stand-in crops in its layout."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score
from stand_in_crops import locations_of, write_hpav23
from workflow_runs import ROOT, change_config, planned, snakemake, write_config

from hpaloc.classes import label_matrix
from hpaloc.location_names import HPAV23_CLASSES
from hpaloc.tables import PROBABILITIES

LABELS = [(0,), (14,), (0, 14), (18,)]
PARTS = ["train"] * 8 + ["valid"] * 4 + ["test"] * 5
SMALL = {"shards": 2, "train": {"input_size": 32, "epochs": 1, "batch_size": 16}, "predict": {"views": 1}}


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Stand-in crops, one of which has none of the 19 classes."""
    folder = tmp_path_factory.mktemp("mini-hpa")
    antibodies = {
        f"HPA{number:06d}": (part, labels, locations_of(labels))
        for number, part in enumerate(PARTS)
        for labels in [LABELS[number % len(LABELS)]]
    }
    write_hpav23(folder, antibodies | {"HPA000900": ("test", (17,), "Endosomes")}, most=3)
    return folder


@pytest.fixture
def folder(crops, tmp_path):
    """A working folder with the shipped configuration of the benchmark, made small."""
    shipped = yaml.safe_load((ROOT / "config/hpav23.yaml").read_text())
    for section, values in SMALL.items():
        shipped[section] = shipped[section] | values if isinstance(shipped.get(section), dict) else values
    write_config(tmp_path / "config.yaml", **shipped | {"root": str(crops)})
    return tmp_path


def test_crops_are_planned_by_shards_and_none_is_segmented(folder):
    jobs, _ = planned(folder, "hpav23")
    assert jobs["mark_crops"] == jobs["tile"] == 4
    assert jobs["predict"] == 2
    assert jobs["score_hpav23"] == jobs["train"] == 1
    assert not {"segment", "browse", "evaluate"} & set(jobs)


def test_the_benchmark_needs_labelled_crops_of_its_table(folder):
    collections = change_config(folder)["collections"]
    del collections["hpav23"]["labels"]
    change_config(folder, collections=collections)
    text = snakemake(folder, "--dry-run", "hpav23", check=False).stdout
    assert "hpav23 scores predicted collections whose table of crops (crops) has labels (labels: true)" in text


def test_a_missing_crop_is_named_before_anything_runs(folder):
    collections = change_config(folder)["collections"]
    collections["train"]["antibodies"]["train"] = "gone.txt"
    change_config(folder, collections=collections)
    text = snakemake(folder, "--dry-run", "hpav23", check=False).stdout
    assert "antibodies gone.txt: cannot be read (No such file or directory)" in text
    assert not Path(folder, "results").exists()


@pytest.mark.slow
def test_one_command_ends_in_the_scores(folder, crops):
    text = snakemake(folder, "hpav23").stdout
    scores = json.loads((folder / "results/evaluation/hpav23.json").read_text())["hpav23"]
    table = pd.read_csv(folder / "results/evaluation/hpav23.csv")
    # The table as it was published, and what the workflow predicted.
    published = pd.read_csv(crops / "metadata.csv", dtype=str, keep_default_na=False)
    tested = (crops / "test_antibodies.txt").read_text().split()
    published = published[published["antibody"].isin(tested) & (published["locations"] != "Endosomes")]
    names = ["if_plate_id", "position", "sample", "cell_id"]
    published.index = ["_".join(row) for row in published[names].to_numpy()]
    predicted = pd.read_parquet(folder / "results/predictions/hpav23/cells.parquet").set_index("field")
    assert sorted(predicted.index) == sorted(published.index)
    locations = published.loc[predicted.index, "locations"]
    labels = label_matrix([[HPAV23_CLASSES[name] for name in (text or "Negative").split(",")] for text in locations])
    p = predicted[list(PROBABILITIES)].to_numpy(float)
    found = np.flatnonzero(labels.any(axis=0))
    assert found.tolist() == [0, 14, 18]
    assert scores["cells"] == len(predicted)
    expected = {
        "macro_ap": average_precision_score(labels[:, found], p[:, found]),
        "micro_ap": average_precision_score(labels[:, found], p[:, found], average="micro"),
        "ranking_ap": label_ranking_average_precision_score(labels[:, found], p[:, found]),
        "macro_auc": roc_auc_score(labels[:, found], p[:, found]),
    }
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-6), name
    assert table["location"].tolist()[0] == "Overall"
    assert set(table["location"]) == {"Overall", "Nucleoplasm", "Mitochondria", "Negative"}
    assert f"hpav23: HPAv23, {len(predicted)} crops: mean AP {scores['macro_ap']:.4f}" in text
    assert "Mitochondria" in text[text.index("mean AP") :]
    assert "Nothing to be done" in snakemake(folder, "hpav23").stdout
