"""Curation: the counts of the 2021 competition, filters, negatives, the split by group, oversampling."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coco_masks import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from hpaloc import curation, rle, tables
from hpaloc.classes import N_CLASSES, format_labels, label_matrix, parse_labels
from hpaloc.curation import CurationSettings
from hpaloc.examples import EXAMPLES, LABEL_COLUMNS, PARTS
from hpaloc.files import write_json
from hpaloc.grouping import group_fields, near_duplicates
from hpaloc.joining import read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.masks import write_mask
from hpaloc.matching import read_true_labels
from hpaloc.splitting import split_groups

TRAIN_CSV = Path(__file__).parents[2] / ".." / "shared" / "data" / "hpa-2021" / "train.csv"
needs_sheet = pytest.mark.skipif(not TRAIN_CSV.is_file(), reason="the sheet of the 2021 competition is not here")

# Of each class: fields, fields with that label only.
COUNTS = (
    (8797, 1551),
    (1095, 221),
    (2451, 515),
    (1262, 549),
    (1425, 788),
    (1792, 636),
    (775, 476),
    (1846, 719),
    (964, 529),
    (998, 300),
    (818, 404),
    (78, 1),
    (1734, 561),
    (3111, 880),
    (2013, 1054),
    (252, 82),
    (5685, 906),
    (593, 302),
    (34, 34),
)


@pytest.fixture(scope="module")
def sheet():
    table = pd.read_csv(TRAIN_CSV)
    return table, [parse_labels(label) for label in table["Label"]]


@needs_sheet
def test_the_counts_of_the_competition_s_sheet(sheet):
    table, sets = sheet
    assert len(table) == 21806
    assert Counter(map(len, sets)) == {1: 10508, 2: 8873, 3: 2233, 4: 190, 5: 2}
    # Before repeats within a row are removed.
    assert (~table["Label"].str.contains("|", regex=False)).sum() == 10412
    raw = table["Label"].value_counts()
    assert (len(raw), int((raw == 1).sum())) == (432, 66)
    of_sets = Counter(sets)
    assert (len(of_sets), sum(count == 1 for count in of_sets.values())) == (372, 55)
    assert sum(len(label.split("|")) > len(labels) for label, labels in zip(table["Label"], sets, strict=True)) == 146
    assert label_matrix(sets).sum(axis=0).tolist() == [fields for fields, _ in COUNTS]
    assert [of_sets[(label,)] for label in range(N_CLASSES)] == [only for _, only in COUNTS]
    pairs = Counter(pair for labels in sets for pair in combinations(labels, 2))
    assert pairs.most_common(6) == [
        ((0, 16), 2410),
        ((0, 2), 1127),
        ((0, 13), 1078),
        ((13, 16), 811),
        ((0, 7), 748),
        ((0, 12), 688),
    ]
    assert 19 * 18 // 2 - len(pairs) == 34


@needs_sheet
def test_the_split_of_the_competition_s_sheet(sheet):
    table, sets = sheet
    parts = split_groups(sets, table["ID"].to_numpy(), 0.2, seed=1)
    assert Counter(parts) == {"train": 17455, "validation": 4351}
    of_sets = Counter(sets)
    assert {part for part, labels in zip(parts, sets, strict=True) if of_sets[labels] == 1} == {"train"}
    matrix = label_matrix(sets)
    share = matrix[parts == "validation"].sum(axis=0) / matrix.sum(axis=0)
    assert (abs(share - 0.2) < 0.03).all()
    # Stratified by label set, not by class alone: frequent sets keep their share too.
    for labels, count in of_sets.items():
        if count >= 50:
            inside = [part for part, of_field in zip(parts, sets, strict=True) if of_field == labels]
            assert inside.count("validation") / count == pytest.approx(0.2, abs=0.03)


@needs_sheet
def test_the_split_is_the_seed_s(sheet):
    table, sets = sheet
    some = slice(0, 3000)
    first = split_groups(sets[some], table["ID"][some].to_numpy(), 0.2, seed=1)
    assert (first == split_groups(sets[some], table["ID"][some].to_numpy(), 0.2, seed=1)).all()
    assert (first != split_groups(sets[some], table["ID"][some].to_numpy(), 0.2, seed=2)).any()


labels_of_fields = st.lists(
    st.tuples(
        st.sets(st.integers(0, 18), min_size=1, max_size=3).map(lambda found: tuple(sorted(found))),
        st.integers(0, 12),
    ),
    min_size=2,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(labels_of_fields, st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5))
def test_no_group_is_torn_and_no_part_is_empty(fields, fraction, seed):
    sets, numbers = [labels for labels, _ in fields], [f"g{number}" for _, number in fields]
    if len(set(numbers)) < 2:
        with pytest.raises(ValueError, match="at least two groups"):
            split_groups(sets, numbers, fraction, seed)
        return
    parts = split_groups(sets, numbers, fraction, seed)
    assert set(parts) == {"train", "validation"}
    of_group = {}
    for group, part in zip(numbers, parts, strict=True):
        assert of_group.setdefault(group, part) == part


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 18), min_size=3, max_size=40), st.integers(0, 5))
def test_each_class_of_two_groups_is_in_both_parts(classes, seed):
    sets = [(label,) for label in classes for _ in range(2)]
    groups = [f"g{number}" for number in range(len(classes)) for _ in range(2)]
    parts = split_groups(sets, groups, 0.2, seed)
    counts = Counter(classes)
    for label, count in counts.items():
        found = {part for part, labels in zip(parts, sets, strict=True) if labels == (label,)}
        if count >= 2:
            assert found == {"train", "validation"}
        elif max(counts.values()) > 1 and sum(c for c in counts.values() if c > 1) >= 0.4 * len(classes):
            assert found == {"train"}


def test_the_sheet_s_own_split_is_kept():
    sets = [(0,)] * 8
    groups = list("aabbccdd")
    fixed = ["validation", None, "train", "train", None, None, None, None]
    parts = split_groups(sets, groups, 0.25, 1, fixed)
    assert parts[:4].tolist() == ["validation", "validation", "train", "train"]
    with pytest.raises(ValueError, match="divides the group of field a"):
        split_groups(sets, groups, 0.25, 1, ["validation", "train", *[None] * 6])
    with pytest.raises(ValueError, match="'test', expected one of train, validation"):
        split_groups(sets, groups, 0.25, 1, ["test", *[None] * 7])


def test_with_a_fraction_of_0_only_what_the_sheet_names_validates():
    sets, groups = [(0,), (1,), (1,)], ["a", "b", "c"]
    assert split_groups(sets, groups, 0.0, 1).tolist() == ["train"] * 3
    assert split_groups(sets, groups, 0.0, 1, [None, "validation", None]).tolist()[1] == "validation"
    assert split_groups([(4,)], ["a"], 0.0, 1).tolist() == ["train"]


def flip(value, *positions):
    for position in positions:
        value ^= 1 << position
    return value


def random_hashes(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, (n, 3), dtype=np.uint64)


def test_near_duplicates_are_all_found_and_no_others():
    hashes = random_hashes(5000)
    hashes[4999] = [flip(int(value), *range(1, 7)) for value in hashes[3]]
    hashes[4100] = hashes[17]
    hashes[40] = [flip(int(value), *range(1, 9)) for value in hashes[41]]
    assert sorted(map(tuple, near_duplicates(hashes))) == [(3, 4999), (17, 4100)]


def test_groups_join_antibodies_and_duplicates():
    hashes = random_hashes(7)
    hashes[5] = hashes[0]
    fields = pd.DataFrame(
        {
            "field": list("gfedcba"),
            "antibody": ["A", "A", "B", "B", "C", "C", None],
            **{f"hash_{colour}": hashes[:, column] for column, colour in enumerate(("red", "blue", "yellow"))},
        }
    )
    groups, summary = group_fields(fields, ["antibody", "duplicates"])
    assert groups.tolist() == ["b", "b", "d", "d", "b", "b", "a"]
    assert summary == {"group_by": ["antibody", "duplicates"], "duplicate_pairs": 1, "groups": 3}
    assert group_fields(fields, ["duplicates"])[0].tolist() == ["b", "f", "e", "d", "c", "b", "a"]
    assert group_fields(fields, ["field"])[0].tolist() == list("gfedcba")
    patients = fields.assign(patient=[None, 7.0, None, None, None, 7.0, 8.0])
    assert group_fields(patients, ["patient"])[0].tolist() == ["g", "b", "e", "d", "c", "b", "a"]
    groups, summary = group_fields(patients, ["antibody", "patient"])
    assert groups.tolist() == ["b", "b", "d", "d", "b", "b", "a"]
    assert summary == {"group_by": ["antibody", "patient"], "groups": 3}
    alone = fields.drop(columns="antibody")
    assert group_fields(alone, ["antibody"])[1]["group_by"] == ["field"]


def test_a_rejected_field_changes_no_near_duplicate(tmp_path):
    # Beyond 53 bits a float has no room: these differ in 21 bits, of which 10 are the last of the first hash.
    hashes = random_hashes(2)
    hashes[1] = hashes[0]
    hashes[1, 0] = flip(int(hashes[0, 0]), *range(10))
    hashes[1, 1] = flip(int(hashes[0, 1]), *range(40, 51))
    names = [f"hash_{colour}" for colour in ("red", "blue", "yellow")]
    rows = [
        {"field": field} | dict(zip(names, map(int, of_field), strict=True))
        for field, of_field in zip("ab", hashes, strict=True)
    ]
    found = []
    for name, some in (("whole", rows), ("rejected", [*rows, {"field": "c"}])):
        table = tables.to_table([dict.fromkeys(tables.FIELDS.names) | row for row in some], tables.FIELDS)
        tables.write_table(tmp_path / name, table)
        found.append(group_fields(read_fields([tmp_path / name]), ["duplicates"])[1]["duplicate_pairs"])
    assert found == [0, 0]


def tables_of(n_fields=40, cells_per_field=6, seed=0, classes=(0, 7, 14, 16, 18)):
    """Cells and fields that pass every filter; two fields an antibody, one class an antibody."""
    rng = np.random.default_rng(seed)
    names = [f"f{number:03d}" for number in range(n_fields)]
    labels = [str(classes[(number // 2) % len(classes)]) for number in range(n_fields)]
    fields = pd.DataFrame(
        {
            "field": names,
            "labels": labels,
            "antibody": [f"HPA{number // 2}" for number in range(n_fields)],
            "split": None,
            "status": "ok",
            **{f"hash_{c}": random_hashes(n_fields, 7)[:, i] for i, c in enumerate(("red", "blue", "yellow"))},
        }
    )
    n = n_fields * cells_per_field
    cells = pd.DataFrame(
        {
            "field": np.repeat(names, cells_per_field),
            "cell": np.tile(np.arange(1, cells_per_field + 1, dtype=np.int32), n_fields),
            "labels": np.repeat(labels, cells_per_field),
            "height": 1000,
            "width": 1000,
            "border": False,
            "area_px": 20000,
            "area_um2": rng.uniform(200, 900, n),
            "nucleus_area_um2": rng.uniform(60, 200, n),
            "nucleus_area_px": 10000,
            "nucleus_fraction": 0.3,
            "focus": 0.4,
            "saturation": 0.001,
            "green_signal": 10.0,
            "shard": np.int32(0),
            "row": np.arange(n, dtype=np.int32),
        }
    )
    return cells, fields


def run(cells, fields, seed=1, truth=None, **changes):
    examples, summary, left_out = curation.curate(cells, fields, CurationSettings(**changes), seed, truth)
    used = examples[(examples["origin"] != "synthetic") & (examples["copy"] == 0)]
    seen = [*zip(used["field"], used["cell"], strict=True), *zip(left_out["field"], left_out["cell"], strict=True)]
    assert sorted(seen) == sorted(zip(cells["field"], cells["cell"], strict=True))
    assert summary["cells"] == summary["cells_used"] + summary["cells_left_out"]
    filtered = sum(counts["removed"] for counts in summary["filters"].values())
    assert filtered + sum(summary["unlabelled"].values()) == len(left_out)
    for column in ("field", "group"):
        assert examples.groupby(column)["part"].nunique().max() == 1
    antibody = examples["field"].map(fields.set_index("field")["antibody"])
    assert examples.groupby(antibody)["part"].nunique().max() == 1
    for _, members in examples.groupby(["part", "record_shard"]):
        assert members["position"].tolist() == list(range(len(members)))
    matrix = examples[list(LABEL_COLUMNS)].to_numpy()
    assert [format_labels(np.flatnonzero(row)) for row in matrix] == examples["labels"].tolist()
    assert json.loads(json.dumps(summary)) == summary
    return examples, summary, left_out


def test_every_good_cell_of_one_label_is_an_example():
    cells, fields = tables_of()
    examples, summary, left_out = run(cells, fields)
    assert len(examples) == len(cells)
    assert left_out.empty
    assert (examples["origin"] == "real").all()
    assert (examples["weight"] == 1).all()
    assert tables.to_table(examples, EXAMPLES).schema.equals(EXAMPLES)
    counted = sum(
        counts[part][origin] for counts in summary["classes"].values() for part in PARTS for origin in curation.ORIGINS
    )
    assert counted == len(examples)
    assert summary["split"]["group_by"] == ["antibody", "duplicates"]


def test_the_examples_are_shuffled_within_their_part():
    cells, fields = tables_of()
    examples, _, _ = run(cells, fields)
    order = examples.loc[examples["part"] == "train", "row"].to_numpy()
    assert not (np.diff(order) > 0).all()
    assert (np.diff(order) > 0).mean() < 0.7


def test_equal_inputs_give_equal_bytes_whatever_the_order_of_rows(tmp_path):
    cells, fields = tables_of()
    for name, (some_cells, some_fields) in {
        "a": (cells, fields),
        "b": (cells.sample(frac=1, random_state=3), fields.sample(frac=1, random_state=4)),
    }.items():
        examples, summary, _ = run(some_cells, some_fields, oversample=0.5, negatives={"synthetic_fraction": 0.2})
        tables.write_table(tmp_path / name, tables.to_table(examples, EXAMPLES))
        write_json(tmp_path / f"{name}.json", summary)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    other, _, _ = run(cells, fields, seed=2)
    assert other["row"].tolist() != run(cells, fields)[0]["row"].tolist()


@pytest.mark.parametrize(
    ("name", "change", "off"),
    [
        ("border", {"border": True}, {"drop_border_cells": False}),
        ("cell_area", {"area_um2": 20.0}, {"min_cell_area": None}),
        ("cell_area", {"area_um2": 9000.0}, {"max_cell_area": None}),
        ("nucleus", {"nucleus_area_um2": 3.0}, {"min_nucleus_area": None}),
        ("nucleus", {"nucleus_fraction": 0.99}, {"max_nucleus_fraction": None}),
        ("focus", {"focus": 0.01}, {"min_focus": None}),
        ("saturation", {"saturation": 0.5}, {"max_saturation": None}),
        ("green_signal", {"green_signal": 0.5}, {"min_green_signal": None}),
    ],
)
def test_each_filter_removes_what_it_names_and_can_be_switched_off(name, change, off):
    cells, fields = tables_of()
    for column, value in change.items():
        cells.loc[5, column] = value
    no_relabelling = {"negatives": {"low_green": False}}
    _, summary, left_out = run(cells, fields, **no_relabelling)
    assert left_out.to_dict("records") == [{"field": "f000", "cell": 6, "reason": name}]
    assert summary["filters"][name]["removed"] == summary["filters"][name]["failing"] == 1
    assert run(cells, fields, **no_relabelling, **off)[2].empty


def test_a_cell_is_too_dark_beside_the_bright_cells_of_its_own_field():
    cells, fields = tables_of()
    # Dimmer fields are not held against brighter ones.
    cells.loc[cells["field"] == "f001", "green_signal"] = 2.0
    # The upper quartile is 9.5, whatever the brightest has; mean, median and maximum would judge otherwise.
    cells.loc[cells["field"] == "f000", "green_signal"] = [6.0, 2.4, 30.0, 8.0, 10.0, 2.3]
    assert run(cells, fields, min_green_share=0.2)[2].empty
    for limit in (1.0, None):
        chosen = {"min_green_share": 0.25, "min_green_signal": limit, "negatives": {"low_green": False}}
        _, summary, left_out = run(cells, fields, **chosen)
        assert left_out.to_dict("records") == [{"field": "f000", "cell": 6, "reason": "green_signal"}]
        assert summary["filters"]["green_signal"]["removed"] == 1
    # A cell that is dark for its field is a negative, as one that is dark for its background.
    examples, _, left_out = run(cells, fields, min_green_share=0.25, negatives={"target_fraction": 0.5})
    assert left_out.empty
    assert examples.loc[examples["origin"] == "relabelled", "labels"].tolist() == ["18"]


def test_a_cell_that_fails_two_filters_is_counted_by_the_first():
    cells, fields = tables_of()
    cells.loc[5, ["border", "area_um2"]] = [True, 1.0]
    _, summary, left_out = run(cells, fields)
    assert left_out["reason"].tolist() == ["border"]
    assert summary["filters"]["cell_area"] == {"removed": 0, "failing": 1}


def test_fields_without_any_nucleus_are_spared_by_the_nucleus_filter():
    cells, fields = tables_of()
    of_field = cells["field"] == "f003"
    cells.loc[of_field, ["nucleus_area_px", "nucleus_area_um2", "nucleus_fraction"]] = 0
    cells.loc[0, ["nucleus_area_px", "nucleus_area_um2"]] = 0
    _, _, left_out = run(cells, fields)
    assert left_out.to_dict("records") == [{"field": "f000", "cell": 1, "reason": "nucleus"}]


def test_near_duplicates_and_antibodies_stay_in_one_part_whatever_the_seed():
    cells, fields = tables_of()
    rng = np.random.default_rng(5)
    columns = ["hash_red", "hash_blue", "hash_yellow"]
    table = fields[columns].to_numpy(np.uint64)
    # Each of the first ten fields once more, in another antibody and nearly the same picture.
    for row in range(10):
        table[39 - row] = [flip(int(value), *rng.choice(63, 4, replace=False)) for value in table[row]]
    fields[columns] = table
    pairs = near_duplicates(table)
    assert len(pairs) == 10
    for seed in range(3):
        examples, summary, _ = run(cells, fields, seed=seed)
        part = examples.groupby("field")["part"].first().reindex(fields["field"]).to_numpy()
        assert (part[pairs[:, 0]] == part[pairs[:, 1]]).all()
        assert summary["split"]["duplicate_pairs"] == 10
        assert summary["split"]["groups"] == 15


def test_a_cell_whose_focus_is_unknown_is_kept():
    cells, fields = tables_of()
    cells.loc[3, "focus"] = np.nan
    assert run(cells, fields)[2].empty


def test_label_modes():
    cells, fields = tables_of()
    for table in (cells, fields):
        table.loc[table["field"] == "f004", "labels"] = "7|14"
        table.loc[table["field"] == "f005", "labels"] = ""
    examples, summary, _ = run(cells, fields)
    assert summary["unlabelled"] == {"no_label": 6, "several_labels": 6, "no_truth": 0, "negative_field": 0}
    assert examples["labels"].str.contains("|", regex=False).sum() == 0
    examples, summary, _ = run(cells, fields, labels="all")
    assert (examples["labels"] == "7|14").sum() == 6
    assert summary["unlabelled"]["no_label"] == 6

    truth = cells[["field", "cell"]].assign(labels="3").iloc[:100]
    truth.loc[::2, "labels"] = "18"
    cells.loc[0, "green_signal"] = 0.0
    cells.loc[1, "green_signal"] = 0.0
    examples, summary, _ = run(cells, fields, labels="cells", truth=truth)
    assert summary["unlabelled"]["no_truth"] == len(cells) - 100
    assert summary["negatives"]["truth"] == 50
    # Truth per cell is not overruled by a dark green channel.
    assert summary["filters"]["green_signal"]["failing"] == 0
    assert Counter(examples["labels"]) == {"18": 50, "3": 50}

    truth.loc[truth.index[:10], "labels"] = "3|7"
    examples, summary, _ = run(cells, fields, labels="cells", truth=truth)
    assert (examples["labels"] == "3|7").sum() == 10
    # A softmax head cannot learn them.
    settings = CurationSettings(labels="cells")
    examples, summary, _ = curation.curate(cells, fields, settings, 0, truth, one_location=True)
    assert summary["unlabelled"]["several_labels"] == 10
    assert Counter(examples["labels"]) == {"18": 45, "3": 45}


def dark(cells, share=0.5, seed=0):
    rng = np.random.default_rng(seed)
    positive = cells["labels"] != "18"
    cells.loc[positive & (rng.random(len(cells)) < share), "green_signal"] = 0.3
    return cells


def test_low_green_cells_become_negatives_up_to_the_target():
    cells, fields = tables_of(classes=(0, 7, 14, 16))
    dark(cells)
    candidates = int((cells["green_signal"] < 1).sum())
    examples, summary, left_out = run(cells, fields, negatives={"target_fraction": 0.1})
    relabelled = examples[examples["origin"] == "relabelled"]
    assert (relabelled["labels"] == "18").all()
    for part in PARTS:
        members = examples[examples["part"] == part]
        share = (members["labels"] == "18").mean()
        assert share <= 0.1
        assert share > 0.1 - 1 / len(members)
    assert summary["negatives"]["low_green"] == len(relabelled)
    assert summary["negatives"]["low_green_candidates"] == candidates
    assert (left_out["reason"] == "green_signal").sum() == candidates - len(relabelled)
    assert run(cells, fields, negatives={"low_green": False})[1]["negatives"]["low_green"] == 0
    everything = run(cells, fields, negatives={"target_fraction": 0.99})[1]
    assert everything["negatives"]["low_green"] == candidates


def test_negative_fields_count_towards_the_target_and_can_be_left_out():
    cells, fields = tables_of()
    _, summary, _ = run(dark(cells), fields, negatives={"target_fraction": 0.1})
    assert summary["negatives"]["negative_fields"] == 48
    assert summary["negatives"]["low_green"] == 0
    _, summary, left_out = run(cells, fields, negatives={"negative_fields": False, "low_green": False})
    assert summary["unlabelled"]["negative_field"] == 48
    assert (left_out["reason"] == "negative_field").sum() == 48


def test_external_negatives_are_counted_apart():
    cells, fields = tables_of()
    negative = fields.loc[fields["labels"] == "18", "field"].tolist()
    names = {name: f"outside-{name}" for name in negative[:2]}
    cells["field"] = cells["field"].replace(names)
    fields["field"] = fields["field"].replace(names)
    _, summary, _ = run(cells, fields, negatives={"external": "outside-*"})
    assert (summary["negatives"]["external"], summary["negatives"]["negative_fields"]) == (12, 36)
    _, summary, _ = run(cells, fields, negatives={"external": "outside-*", "negative_fields": False})
    assert (summary["negatives"]["external"], summary["negatives"]["negative_fields"]) == (12, 0)


def test_synthetic_negatives_are_dimmed_positives_of_training():
    cells, fields = tables_of(classes=(0, 7, 14, 16))
    examples, summary, _ = run(cells, fields, negatives={"synthetic_fraction": 0.05, "target_fraction": 0.1})
    synthetic = examples[examples["origin"] == "synthetic"]
    positives = (examples["part"] == "train").sum() - len(synthetic)
    assert len(synthetic) == summary["negatives"]["synthetic"] == int(0.05 * positives)
    assert set(synthetic["part"]) == {"train"}
    assert (synthetic["labels"] == "18").all()
    assert synthetic["green_scale"].between(0, 0.1).all()
    assert synthetic["green_scale"].nunique() > 1
    assert (examples.loc[examples["origin"] != "synthetic", "green_scale"] == 1).all()
    # The cell is an example of its own label as well.
    real = examples[examples["origin"] == "real"]
    assert set(synthetic["key"]) <= set(real["key"])
    capped = run(cells, fields, negatives={"synthetic_fraction": 1.0, "target_fraction": 0.1})[1]
    assert capped["negatives"]["synthetic"] == int(0.1 / 0.9 * positives)


def test_oversampling_evens_the_classes_of_the_training_part_only():
    cells, fields = tables_of(n_fields=60, classes=(0, 0, 0, 0, 7, 14))
    validation = None
    for strength, tolerance in ((0.0, None), (0.5, None), (1.0, 1)):
        examples, summary, _ = run(cells, fields, oversample=strength)
        train = examples[examples["part"] == "train"]
        counts = Counter(train["labels"])
        rest = examples[examples["part"] == "validation"]
        assert (rest["copy"] == 0).all()
        validation = validation or sorted(rest["key"])
        assert sorted(rest["key"]) == validation
        if strength == 0:
            natural = counts
            assert summary["copies"] == 0
        elif tolerance:
            assert max(counts.values()) - min(counts.values()) <= tolerance
            assert max(counts.values()) == max(natural.values())
        else:
            for label, count in counts.items():
                expected = natural[label] * (max(natural.values()) / natural[label]) ** 0.5
                assert count == pytest.approx(expected, abs=1)
        assert (train.groupby("key")["copy"].max() + 1 == train.groupby("key")["copies"].first()).all()
        assert not train.duplicated(["key", "copy"]).any()


def test_many_examples_fill_several_record_files_evenly(monkeypatch):
    monkeypatch.setattr("hpaloc.examples.RECORDS_PER_FILE", 50)
    cells, fields = tables_of()
    examples, _, _ = run(cells, fields)
    sizes = examples[examples["part"] == "train"].groupby("record_shard").size()
    assert sizes.max() <= 50
    assert sizes.max() - sizes.min() <= 1
    assert sizes.index.tolist() == list(range(len(sizes)))


def test_truth_is_carried_over_by_overlap(tmp_path):
    mask = np.zeros((60, 80), np.uint16)
    mask[5:25, 5:25], mask[30:50, 10:40], mask[10:30, 50:70] = 1, 2, 3
    found = np.zeros_like(mask)
    found[6:25, 5:25], found[30:50, 10:22], found[10:30, 50:72] = 9, 4, 6
    write_mask(tmp_path / "a.png", mask)
    strings = rle.encode_labels(found)
    cells = pd.DataFrame(
        [{"field": "a", "cell": id, "height": 60, "width": 80, "rle": counts} for id, counts in strings.items()]
    )
    fields = pd.DataFrame({"field": ["a", "c"], "shard": 0})
    (tmp_path / "cells.csv").write_text("ID,cell,Label\na,1,0\na,2,7\na,3,14|0\nb,1,3\nc,1,3\n")
    files = CollectionFiles("test", ["000"], [tmp_path / "cells.csv"], str(tmp_path / "{id}.png"))
    # b is not here; c has no cells, and no true mask.
    carried = read_true_labels(cells, fields, files)
    assert carried.to_numpy().tolist() == [["a", 6, "0|14"], ["a", 9, "0"]]
    with pytest.raises(FileNotFoundError, match=r"field a: there is no true mask at .*/none/a\.png"):
        read_true_labels(cells, fields, replace(files, true_masks=str(tmp_path / "none/{id}.png")))
    write_mask(tmp_path / "small_a.png", mask[:30])
    with pytest.raises(ValueError, match=r"small_a\.png: the mask is \(30, 80\), but the field a is \(60, 80\)"):
        read_true_labels(cells, fields, replace(files, true_masks=str(tmp_path / "small_{id}.png")))


def test_of_two_true_cells_that_share_a_cell_alike_one_gives_its_label(tmp_path):
    mask = np.repeat(np.array([[2, 1]], np.uint16), 10, axis=1).repeat(10, axis=0)
    write_mask(tmp_path / "a.png", mask)
    whole = encode(mask > 0)
    cells = pd.DataFrame([{"field": "a", "cell": 4, "height": 10, "width": 20, "rle": whole}])
    (tmp_path / "cells.csv").write_text("ID,cell,Label\na,1,0\na,2,7\n")
    files = CollectionFiles("test", ["000"], [tmp_path / "cells.csv"], str(tmp_path / "{id}.png"))
    carried = read_true_labels(cells, pd.DataFrame({"field": ["a"], "shard": 0}), files)
    assert carried.to_numpy().tolist() == [["a", 4, "0"]]


def test_bad_input_is_named():
    cells, fields = tables_of()
    for changes, message in (
        ({"labels": "cells"}, "no truth per cell is given"),
        ({"min_cell_area": 1e6}, "leaves no cell"),
    ):
        with pytest.raises(ValueError, match=message):
            curation.curate(cells, fields, CurationSettings(**changes), 1)
    with pytest.raises(tables.TableError, match="has no column shard"):
        curation.curate(cells.drop(columns="shard"), fields, CurationSettings(), 1)
    with pytest.raises(tables.TableError, match="no row of field 'f000'"):
        curation.curate(cells, fields.iloc[1:], CurationSettings(), 1)
