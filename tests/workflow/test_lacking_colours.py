"""The whole chain on collections that lack red, yellow or both."""

import json
from pathlib import Path

import anndata
import pandas as pd
import pytest
import yaml
from workflow_runs import ROOT, snakemake, write_config, write_sheet, write_small_run

from hpaloc.classes import COLOURS

DATA = ROOT.parent / "shared" / "data" / "hpa-512"
LACKING = {"train": ["red", "yellow"], "test": ["yellow"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of everything on simulated fields, with a reading of mixtures and an interpretation."""
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name, colours in LACKING.items():
        config["collections"][name]["channels"] = dict.fromkeys(colours)
    config["train"] |= {"channels": ["green", "blue"], "blends": 40}
    config["interpretation"] = {"cells": 50, "permutations": 19, "draws": 2, "examples": [1, 2], "fields": 1}
    write_config(folder / "config.yaml", **config)
    snakemake(folder, "all", "interpret")
    return folder


def lacks(page):
    """Return what a table of the cell browser says that its collection lacks."""
    return json.loads(json.loads(page.read_text()[len("hpaloc.deliver(") : -len(")\n")]))["lacks"]


@pytest.mark.slow
def test_files_and_tables_are_of_the_colours_that_there_are(folder):
    for name, lacking in LACKING.items():
        drawn = {path.stem.rpartition("_")[2] for path in (folder / "resources/simulated" / name / "000").glob("*.png")}
        assert drawn == set(COLOURS) - set(lacking) | {"cellmask", "nucleimask"}
        cells = pd.read_parquet(folder / "results/cells" / name / "000.parquet")
        assert len(cells)
        for colour in COLOURS:
            tiles = folder / "results/tiles" / name / "000" / f"{colour}.tfrecord"
            assert (tiles.stat().st_size == 0) == (colour in lacking)
            assert cells[f"{colour}_cell_mean"].isna().all() == (colour in lacking)
    records = {path.name.split("-")[0] for path in (folder / "results/dataset/train").glob("*.tfrecord")}
    assert records == {"green", "blue"}


@pytest.mark.slow
def test_predictions_browser_and_interpretation_are_there(folder):
    predicted = pd.read_parquet(folder / "results/predictions/test/cells.parquet")
    table = anndata.read_h5ad(folder / "results/predictions/test/cells.h5ad")
    assert len(predicted) == len(table)
    assert {"mixture_0", "p_18"} <= set(predicted)
    assert table.obs["yellow_cell_mean"].isna().all()
    assert table.obs["red_cell_mean"].notna().all()
    assert lacks(folder / "results/browser/test/table.js") == ["yellow"]
    figure = (folder / "results/figures/figure3_channels.svg").read_text()
    assert [name in figure for name in ("Microtubules", "Protein of interest", "Endoplasmic")] == [False, True, False]
    claims = json.loads((folder / "results/interpretation/claims.json").read_text())
    assert len(claims) == 8
    assert "Nothing to be done" in snakemake(folder, "all", "interpret").stdout


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_real_fields_without_colours_are_predicted(folder, tmp_path):
    rows = pd.read_csv(DATA / "train.csv", dtype=str)
    kinds = {"no_yellow": ["yellow"], "no_red": ["red"], "neither": ["red", "yellow"]}
    collections = {}
    for number, (name, lacking) in enumerate(kinds.items()):
        write_sheet(tmp_path / f"{name}.csv", rows.iloc[2 * number : 2 * number + 2].to_dict("records"))
        images = str(DATA / "images/{id}_{colour}.png")
        collections[name] = {"sheet": f"{name}.csv", "images": images, "channels": dict.fromkeys(lacking)}
    write_config(
        tmp_path / "config.yaml",
        collections=collections,
        shards=1,
        pixel_size=0.32,
        predict={"views": 1},
        model={"path": str(folder / "results/model")},
    )
    snakemake(tmp_path, "predict_only")
    for name, lacking in kinds.items():
        cells = pd.read_parquet(Path(tmp_path, "results/predictions", name, "cells.parquet"))
        assert cells["field"].nunique() == 2
        assert lacks(tmp_path / "results/browser" / name / "table.js") == lacking
    assert not len(pd.read_csv(tmp_path / "results/sheet/rejected.csv"))
