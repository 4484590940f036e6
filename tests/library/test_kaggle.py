"""The published experiment: its settings, and the division of its sheet."""

from collections import Counter
from itertools import chain

import pytest
import yaml
from made_pages import load_program
from snakemake.utils import update_config
from workflow_runs import ROOT

from hpaloc.classes import N_CLASSES, parse_labels
from hpaloc.config import complete, training_settings
from hpaloc.curation import CurationSettings
from hpaloc.planning.settings import check_training
from hpaloc.training.settings import TrainSettings

TRAIN_CSV = ROOT.parent / "shared/data/hpa-2021/train.csv"

make_kaggle_sheets = load_program("make_kaggle_sheets.py")


def settings(*names):
    config = {}
    for name in names:
        update_config(config, yaml.safe_load((ROOT / "config" / name).read_text()))
    filled = complete(config)
    check_training(filled)
    return filled


def train_settings(filled):
    return TrainSettings(**training_settings(filled))


def test_the_settings_are_those_of_the_paper():
    filled = settings("kaggle-2021.yaml")
    train = train_settings(filled)
    assert (filled["tiles"]["size"], train.input_size, list(train.channels)) == (256, 256, ["red", "green", "blue"])
    assert (train.epochs, train.batch_size, train.head, train.class_weight_m) == (10, 32, "sigmoid", 50)
    assert CurationSettings(**filled["curation"]).labels == "single"
    rates = [train.learning_rate.at(epoch) for epoch in range(10)]
    assert rates == pytest.approx(
        [0.0005, 0.0007, 0.0009, 0.0011, 0.0011, 0.0011, 0.00095, 0.0008375, 0.0007531, 0.0006898], abs=5e-8
    )
    # The network alone.
    assert filled["train"]["fusion"] == 0
    assert filled["evaluation"]["controls"] == ["tile_random_split", "class_sorted_split", "shuffled_labels"]


def test_the_second_file_changes_the_start_of_the_learning_rate_alone():
    first, second = settings("kaggle-2021.yaml"), settings("kaggle-2021.yaml", "kaggle-2021/start-0.005.yaml")
    rates = [train_settings(second).learning_rate.at(epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.005, 0.0037, 0.0024, 0.0011])
    second["train"]["learning_rate"]["start"] = 0.0005
    assert first == second


def test_the_third_file_leaves_the_defaults_of_today_but_for_what_the_sheet_needs():
    third = settings("kaggle-2021.yaml", "kaggle-2021/present.yaml")
    assert third["curation"].pop("group_by") == ["duplicates"]
    first = yaml.safe_load((ROOT / "config/kaggle-2021.yaml").read_text())
    defaults = complete({key: first[key] for key in ("root", "collections", "shards")})
    del defaults["curation"]["group_by"]
    assert third == defaults
    assert settings("kaggle-2021.yaml") != third


def test_every_line_is_in_one_part_as_it_was():
    lines = [f"{at},{label}" for at, label in enumerate(["0", "0|0", "16", "0|16", "2", "2"] * 10 + ["11|3"])]
    parts = make_kaggle_sheets.divide_sheet("ID,Label\n" + "\n".join(lines) + "\n")
    divided = {name: text.splitlines() for name, text in parts.items()}
    assert {own[0] for own in divided.values()} == {"ID,Label"}
    assert sorted(chain(*(own[1:] for own in divided.values()))) == sorted(lines)
    assert "60,11|3" in divided["training.csv"]


@pytest.mark.skipif(not TRAIN_CSV.is_file(), reason="the sheet of the 2021 competition is not here")
def test_the_sheet_of_the_competition_gives_17455_fields_and_4351():
    parts = make_kaggle_sheets.divide_sheet(TRAIN_CSV.read_text())
    labels = {
        name: [parse_labels(line.split(",")[1]) for line in text.splitlines()[1:]] for name, text in parts.items()
    }
    assert {name: len(own) for name, own in labels.items()} == {"training.csv": 17455, "held_out.csv": 4351}
    single = {name: Counter(own[0] for own in of_part if len(own) == 1) for name, of_part in labels.items()}
    assert sum(single["training.csv"].values()) + sum(single["held_out.csv"].values()) == 10508
    # The one field of Mitotic spindle alone trains; every other class is scored on cells of one label.
    assert set(range(N_CLASSES)) - single["held_out.csv"].keys() == {11}
    assert single["training.csv"].keys() == set(range(N_CLASSES))
