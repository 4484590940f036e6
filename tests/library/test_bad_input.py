"""Bad input: each gets the sentence it is to get, nothing else suffers, and docs/bad-input.md says so."""

import os
import shutil

import numpy as np
import pytest
from bad_fields import FIELDS, MASKS, SUFFIXES, right_images
from bad_input_runs import expected, good, model_folder, run_fields, run_masks
from bad_settings import (
    ATLAS,
    CONFIGS,
    CROPS,
    EXAMPLES,
    IMAGES,
    MASK_TABLES,
    MIXTURES,
    MODELS,
    SHEETS,
    TRAININGS,
    TRUTH,
    WEIGHTS,
    of_atlas,
    of_config,
    of_crops,
    of_examples,
    of_images,
    of_mask_table,
    of_mixtures,
    of_model,
    of_sheet,
    of_training,
    of_truth,
    of_weights,
)
from made_pages import check_page

from hpaloc.images import read_channel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("given") / "model")


@pytest.fixture(scope="module")
def fields(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("run") / "fields"
    return folder, run_fields(folder, model)


@pytest.fixture(scope="module")
def masks(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("run") / "masks"
    return folder, run_masks(folder, model)


def everything_else_went_through(outcome, kind, inputs):
    """Hold that every field is accounted for: rejected with a listed reason, or each of its cells predicted once."""
    rejected = {bad.id for bad in inputs if bad.outcome == "rejected"}
    assert {id for id, (got, _, _) in outcome.fields.items() if got == "rejected"} == rejected
    assert set(outcome.fields) == {*good(kind), *(bad.id for bad in inputs)}
    assert set(outcome.listed) == rejected
    assert len(outcome.predicted) == len(set(outcome.predicted))
    assert outcome.tiled == outcome.predicted
    assert outcome.in_masks == set(outcome.predicted)
    assert {field for field, _ in outcome.predicted} >= set(good(kind))


@pytest.mark.network
@pytest.mark.parametrize("bad", FIELDS, ids=lambda bad: bad.id)
def test_a_bad_field(bad, fields):
    _, outcome = fields
    got, _, sentence = outcome.fields[bad.id]
    assert (got, sentence) == expected(bad)
    if got == "rejected":
        assert outcome.listed[bad.id] == sentence
    everything_else_went_through(outcome, "fields", FIELDS)


# JPEG and four bits keep less than there was.
INEXACT = ("jpeg", "4-bit")


@pytest.mark.network
@pytest.mark.parametrize(
    "bad",
    [bad for bad in FIELDS if bad.outcome == "accepted" and "swapped" not in bad.id],
    ids=lambda bad: bad.id,
)
def test_an_accepted_channel_is_read_as_it_was(bad, fields):
    folder, _ = fields
    right = right_images(len(good("fields")) + FIELDS.index(bad))["red"]
    (path,) = (path for suffix in SUFFIXES if (path := folder / "images" / f"{bad.id}_red{suffix}").exists())
    read = read_channel(path, "red")
    if any(word in bad.id for word in INEXACT):
        assert np.abs(read.astype(int) - right).mean() < (16 if "4-bit" in bad.id else 4)
    else:
        np.testing.assert_array_equal(read, right)


@pytest.mark.network
@pytest.mark.parametrize("bad", MASKS, ids=lambda bad: bad.id)
def test_a_bad_mask(bad, masks):
    _, outcome = masks
    got, _, sentence = outcome.fields[bad.id]
    assert (got, sentence) == expected(bad)
    everything_else_went_through(outcome, "masks", MASKS)


@pytest.mark.parametrize("setting", SHEETS, ids=lambda setting: setting.id)
def test_a_bad_sheet(setting, tmp_path):
    assert of_sheet(setting, tmp_path) == (setting.outcome, setting.message)
    assert "\n" not in setting.message


@pytest.mark.parametrize("setting", TRUTH, ids=lambda setting: setting.id)
def test_a_bad_table_of_true_cells(setting, tmp_path):
    assert of_truth(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", MASK_TABLES, ids=lambda setting: setting.id)
def test_a_bad_table_of_masks(setting, tmp_path):
    assert of_mask_table(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", EXAMPLES, ids=lambda setting: setting.id)
def test_a_bad_table_of_examples(setting, tmp_path):
    assert of_examples(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", MIXTURES, ids=lambda setting: setting.id)
def test_a_bad_table_of_mixtures(setting, tmp_path):
    assert of_mixtures(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", CROPS, ids=lambda setting: setting.id)
def test_a_bad_table_of_crops(setting, tmp_path):
    assert of_crops(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", CONFIGS, ids=lambda setting: setting.id)
def test_a_bad_configuration(setting, tmp_path):
    assert of_config(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", ATLAS, ids=lambda setting: setting.id)
def test_a_bad_setting_or_xml_of_the_atlas(setting, tmp_path):
    assert of_atlas(setting, tmp_path) == (setting.outcome, setting.message)
    assert "\n" not in setting.message


@pytest.mark.parametrize("setting", IMAGES, ids=lambda setting: setting.id)
def test_fields_without_a_sheet(setting, tmp_path):
    assert of_images(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.parametrize("setting", TRAININGS, ids=lambda setting: setting.id)
def test_nothing_to_train_on(setting, tmp_path):
    assert of_training(setting, tmp_path) == (setting.outcome, setting.message)


@pytest.mark.network
@pytest.mark.parametrize("setting", MODELS, ids=lambda setting: setting.id)
def test_a_bad_model(setting, tmp_path, model):
    shutil.copytree(model, tmp_path / "model")
    assert of_model(setting, tmp_path) == (setting.outcome, setting.message)
    assert not (tmp_path / "code-was-run").exists()


@pytest.mark.parametrize("setting", WEIGHTS, ids=lambda setting: setting.id)
def test_bad_weights(setting, tmp_path):
    assert of_weights(setting, tmp_path) == (setting.outcome, setting.message)
    assert not (tmp_path / "code-was-run").exists()


def test_no_two_inputs_have_one_name():
    for inputs in (
        FIELDS,
        MASKS,
        MASK_TABLES,
        SHEETS,
        TRUTH,
        EXAMPLES,
        MIXTURES,
        CONFIGS,
        ATLAS,
        IMAGES,
        TRAININGS,
        MODELS,
        WEIGHTS,
    ):
        assert len({one.id for one in inputs}) == len(inputs)


def test_the_page_of_bad_inputs_says_what_the_tests_hold():
    check_page("make_bad_input.py")
