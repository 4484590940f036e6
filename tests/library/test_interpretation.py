"""What is said of the network: judged across groups, against chance, and reported as failed where it fails."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from scipy.stats import t as t_distribution
from sklearn.metrics import mutual_info_score

from hpaloc import resampling, shuffles
from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.delimited import SheetError
from hpaloc.examples import EXAMPLES, without_classes
from hpaloc.interpretation import claims, few_shot, separation, units
from hpaloc.interpretation.analysis import _notes, labelled_predictions, read_known_mixtures, score_mixtures
from hpaloc.interpretation.cells import Source, StudyError, choose_cells
from hpaloc.interpretation.morphology import measure_cells
from hpaloc.simulate.field import simulate_field
from hpaloc.tables import CELLS, FIELDS, LEANED, NETWORK, PROBABILITIES


def clusters(seed=0, classes=3, groups=4, cells=12, between=4.0, of_group=0.0):
    """Return features (n, 6), labels and groups of clusters of classes, with an offset of each group."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, between, (classes, 6))
    rows = [(label, group) for label in range(classes) for group in range(groups) for _ in range(cells)]
    labels = np.array([label for label, _ in rows])
    names = np.array([f"{label}-{group}" for label, group in rows])
    _, index = np.unique(names, return_inverse=True)
    shift = rng.normal(0, 1, (index.max() + 1, 6)) * of_group
    return centres[labels] + shift[index] + rng.normal(0, 1, (len(rows), 6)), labels, names


def source(name, labels, collection_of_fields, **options):
    """Return a Source of one cell a label, of the fields given."""
    n = len(labels)
    cells = pd.DataFrame({"field": collection_of_fields, "cell": np.arange(1, n + 1)}).reindex(columns=CELLS.names)
    cells = cells.assign(labels=labels, shard=0, row=np.arange(n))
    fields = pd.DataFrame({"field": sorted(set(collection_of_fields))}).reindex(columns=FIELDS.names)
    fields = fields.assign(status="ok", antibody=[f"HPA{name[-1]}" for name in fields["field"]])
    return Source(name, cells, fields, **options)


def test_cells_of_one_location_are_chosen_and_unseen_ones_first(monkeypatch):
    test = source("test", ["0", "0|2", "", "14"], ["a1", "a2", "a2", "a3"])
    train = source("train", ["0", "0", "2", "2"], ["b1", "b4", "b5", "b5"])
    examples = pd.DataFrame(
        {"field": ["b1", "b4", "b4", "b5"], "cell": [1, 2, 2, 3], "copy": [0, 0, 1, 0], "origin": "real"}
    ).reindex(columns=EXAMPLES.names)
    examples = examples.assign(
        copy=[0, 0, 1, 0], origin="real", labels=["0", "0", "0", "2"],
        part=["train", "validation", "validation", "train"], shard=0, row=[0, 1, 1, 2],
    )  # fmt: skip
    train = Source("train", train.cells, train.fields, examples=examples)
    chosen = choose_cells([test, train], 50, [], seed=1)
    assert chosen[["collection", "field", "label", "seen"]].to_numpy().tolist() == [
        ["test", "a1", 0, False], ["test", "a3", 14, False], ["train", "b1", 0, True], ["train", "b4", 0, False],
        ["train", "b5", 2, True],
    ]  # fmt: skip
    # Only what the network has not seen is mapped; one antibody in two collections is one group.
    assert chosen["mapped"].tolist() == [True, True, False, True, False]
    assert chosen.loc[0, "group"] == chosen.loc[2, "group"]
    assert chosen["group"].nunique() == 4
    # Cells of antibodies that trained nothing come first, where there are enough.
    monkeypatch.setattr("hpaloc.interpretation.cells._FEWEST_CELLS", 2)
    assert choose_cells([test, train], 50, [], seed=1)["mapped"].tolist() == [False, True, False, True, False]
    # What the scores leave out counts as seen, with its group.
    left_out = pd.DataFrame({"field": ["a3"], "cell": [0]})
    known = Source("test", test.cells, test.fields, left_out=left_out)
    chosen = choose_cells([known, train], 50, [], seed=1)
    assert chosen["seen"].tolist() == [False, True, True, False, True]
    # With classes held out even cells of the training part are fair: the network of the experiment never saw them.
    held = choose_cells([test, train], 50, [0, 2], seed=1)
    assert held["few_shot"].tolist() == [True, False, True, True, True]
    with pytest.raises(StudyError, match=r"no cell of the class 5 \(Nuclear bodies\)"):
        choose_cells([test, train], 50, [5, 0], seed=1)


def test_examples_of_held_out_classes_leave_the_training_entirely():
    examples = pd.DataFrame({f"label_{index}": [0, 0, 0, 0] for index in range(N_CLASSES)})
    examples = examples.assign(part="train", group=["a", "b", "c", "b"])
    examples.loc[0, "label_2"] = examples.loc[1, ["label_2", "label_5"]] = examples.loc[2, "label_7"] = 1
    # A dark cell beside a cell of the class goes with it.
    examples.loc[3, "label_18"] = 1
    assert without_classes(examples, [5])["group"].tolist() == ["a", "c"]
    assert without_classes(examples, [2])["label_7"].tolist() == [1]
    with pytest.raises(ValueError, match="no training example is left"):
        without_classes(examples, [2, 7])


def test_neighbours_of_the_same_group_have_no_say():
    # Groups are far apart, their classes mixed at random: within its group a cell is told, across groups it is not.
    features, labels, groups = clusters(between=0.0, of_group=30.0)
    distance = separation.distances(features)
    alone = np.arange(len(labels)).astype(str)
    within = separation.neighbour_calls(separation.nearest(distance, alone), labels)
    across = separation.neighbour_calls(separation.nearest(distance, groups), labels)
    assert (within == labels).mean() > 0.95
    assert (across == labels).mean() < 0.6
    features, labels, groups = clusters(between=6.0)
    neighbours = separation.nearest(separation.distances(features), groups)
    assert (separation.neighbour_calls(neighbours, labels) == labels).mean() > 0.9


def test_silhouettes_are_those_of_the_definition_over_other_groups():
    features, labels, groups = clusters(cells=3)
    distance = separation.distances(features)
    found = separation.silhouettes(distance, labels, groups)
    row = 7
    other = groups != groups[row]
    means = [distance[row, other & (labels == label)].mean() for label in range(3)]
    own = means.pop(labels[row])
    assert found[row] == pytest.approx((min(means) - own) / max(min(means), own))
    # A class that one group holds alone has no silhouette.
    lonely = np.where(labels == 2, "one", groups)
    found = separation.silhouettes(distance, labels, lonely)
    assert np.isnan(found[labels == 2]).all()
    assert np.isfinite(found[labels != 2]).all()


def test_separation_is_held_against_labels_of_other_groups():
    features, labels, groups = clusters(between=6.0)
    noise = np.random.default_rng(1).normal(size=features.shape)
    table, singles = separation.score_separation(
        {("trained", "stem"): noise, ("trained", "deep"): features}, labels, groups, 1
    )
    knn = table[table["score"] == "knn_accuracy"].set_index("layer")
    assert knn.loc["deep", "low"] > 0.9
    assert knn.loc["stem", "high"] < 0.6
    assert knn.loc["deep", "shuffled"] < 0.6
    assert len(singles) == 2 * len(labels)


def test_maps_are_the_same_for_the_same_seed():
    features, _, _ = clusters(cells=4)
    for method in ("UMAP", "t-SNE"):
        first, other = separation.planar_maps([features, -2 * features + 1], method, 3)
        assert first.shape == other.shape == (len(features), 2)
        np.testing.assert_array_equal(first, separation.planar_maps([features], method, 3)[0])
        np.testing.assert_array_equal(other, separation.planar_maps([-2 * features + 1], method, 3)[0])


def test_correlation_and_information_are_those_of_the_libraries():
    rng = np.random.default_rng(0)
    answers, features = rng.normal(size=(200, 3)), rng.normal(size=(200, 2))
    found = units.correlations(separation.standardised(answers), separation.standardised(features))
    assert found[1, 0] == pytest.approx(pearsonr(answers[:, 1], features[:, 0])[0], abs=1e-5)
    labels = rng.integers(0, 3, 200)
    levels = units.binned(answers)
    joint = np.array(
        [[np.bincount(levels[labels == label, unit], minlength=8) for unit in range(3)] for label in range(3)]
    )
    told = units.mutual_information(joint, joint.sum(axis=0), joint.sum(axis=2)[:, :1])
    for label, unit in ((0, 0), (1, 2), (2, 1)):
        expected = mutual_info_score(levels[:, unit], labels == label) / np.log(2)
        assert told[label, unit] == pytest.approx(expected, abs=1e-5)
    # Half of the answers are 0 after a rectifier: equal answers are in one bin.
    rectified = np.maximum(answers, 0)
    assert len(np.unique(units.binned(rectified)[rectified[:, 0] == 0, 0])) == 1


def test_units_are_significant_where_they_know_something_and_not_by_their_number():
    _, labels, groups = clusters(groups=10, cells=5)
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(len(labels), 300))
    # Cells of a group look alike: what that alone gives must not pass for a correlation.
    _, index = np.unique(groups, return_inverse=True)
    noise += rng.normal(size=(index.max() + 1, 300))[index]
    morphology = pd.DataFrame(rng.normal(size=(len(labels), 20)) + rng.normal(size=(index.max() + 1, 20))[index])
    morphology.columns = [f"feature {at}" for at in range(20)]
    knows = noise.copy()
    knows[:, 0] = labels * 3 + rng.normal(size=len(labels))
    knows[:, 1] = -morphology["feature 7"] + 0.2 * rng.normal(size=len(labels))
    # A unit that answers alike to all cells is counted, and knows nothing.
    knows[:, 2] = 7.0
    layers = {"low": noise[:, :40], "deep": knows}
    found = units.describe_units(layers, morphology, labels, groups, permutations=59, seed=0)
    table = found.units[found.units["layer"] == "deep"].reset_index(drop=True)
    first, second, silent = table.iloc[0], table.iloc[1], table.iloc[2]
    assert first["information_p_all"] <= 0.05
    assert (second["feature"], second["r"] < -0.9, second["r_p_all"] <= 0.05) == ("feature 7", True, True)
    assert (silent["feature"], silent["r"], silent["r_p"], silent["information_p_all"]) == ("", 0, 1, 1)
    assert (table["r_p_all"][3:] > 0.05).all()
    assert (table["information_p_all"][3:] > 0.05).all()
    assert (found.units["r_p_all"] >= found.units["r_p"]).all()
    # What one group alone shows is no median of all: without any of the groups it is nearly the same.
    assert len(found.left_out["r"]) == len(np.unique(groups))
    np.testing.assert_allclose(found.left_out["r"], found.units["r"].abs().median(), atol=0.1)


def test_units_of_every_layer_are_paid_for():
    # One unit in each of many layers: paid for layer by layer, some would be significant.
    rng = np.random.default_rng(5)
    labels, groups = np.arange(60) % 2, np.arange(60).astype(str)
    morphology = pd.DataFrame({"a": rng.normal(size=60)})
    layers = {f"layer {number}": rng.normal(size=(60, 1)) for number in range(60)}
    found = units.describe_units(layers, morphology, labels, groups, permutations=199, seed=0).units
    assert (found["r_p"] <= 0.05).any()
    assert (found["r_p_all"] > 0.05).all()


def test_strengths_without_a_block_are_those_of_the_other_cells():
    rng = np.random.default_rng(6)
    labels, groups = np.repeat([0, 1, 2], 20), np.repeat(np.arange(6), 10).astype(str)
    answers = rng.normal(size=(60, 1)) + labels[:, None]
    morphology = pd.DataFrame({"a": answers[:, 0] + rng.normal(size=60)})
    found = units.describe_units({"deep": answers}, morphology, labels, groups, permutations=19, seed=0)
    kept = [np.flatnonzero(groups != name) for name in np.unique(groups)]
    expected = [pearsonr(answers[rows, 0], morphology["a"].to_numpy()[rows])[0] for rows in kept]
    np.testing.assert_allclose(np.sort(found.left_out["r"]), np.sort(expected), atol=1e-5)


def test_a_shuffle_takes_whole_groups():
    groups = np.repeat(["a", "b", "c"], [4, 4, 2])
    own = 0
    for seed in range(60):
        passed_on = groups[shuffles.shuffled_labels(groups, seed)]
        assert (passed_on != groups).all()
        assert all(len(np.unique(passed_on[groups == name])) == 1 for name in "abc")
        rows = shuffles.permuted_groups(groups, seed)
        assert all(len(np.unique(groups[rows[groups == name]])) == 1 for name in "abc")
        own += (groups[rows] == groups).all()
        # Between groups of equal size every row is taken once.
        if groups[rows[0]] == "b":
            assert sorted(rows[:4]) == [4, 5, 6, 7]
    # One in six permutations leaves three groups as they are.
    assert 3 <= own <= 20


def test_the_jackknife_has_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(size=20)
    left_out = np.array([np.delete(values, at).mean() for at in range(20)])
    low, high = resampling.jackknife_interval(values.mean(), left_out)
    expected = t_distribution.interval(0.95, 19, values.mean(), values.std(ddof=1) / 20**0.5)
    np.testing.assert_allclose((low, high), expected)
    assert np.isnan(resampling.jackknife_interval(1.0, np.array([1.0]))).all()


def test_a_few_shot_example_and_the_cells_it_tells_share_no_group():
    _, labels, groups = clusters(groups=4)
    for seed in range(20):
        examples, told = few_shot.draw_examples(labels, groups, 5, np.random.default_rng(seed))
        assert not set(groups[examples]) & set(groups[told])
        assert np.bincount(labels[examples]).tolist() == [5, 5, 5]
        assert set(labels[told]) == {0, 1, 2}


def test_a_group_of_several_classes_is_on_one_side_for_all_of_them():
    # Every group holds every class, as proteins do whose cells differ: half of the groups are left to be told.
    labels, groups = np.tile(np.repeat([0, 1, 2], 4), 4), np.repeat(list("abcd"), 12)
    for seed in range(20):
        examples, told = few_shot.draw_examples(labels, groups, 3, np.random.default_rng(seed))
        assert not set(groups[examples]) & set(groups[told])
        assert len(set(groups[told])) == 2
        assert set(labels[told]) == set(labels[examples]) == {0, 1, 2}
    features = np.random.default_rng(0).normal(size=(len(labels), 4))
    curves = few_shot.few_shot_curves({"network": features}, labels, groups, [1], 4, 0)
    assert len(curves) == 4 * len(few_shot.LEARNERS)


def test_a_class_without_examples_is_not_told():
    # Three classes, each held by two of three groups: one of them is on one side alone, whatever is drawn.
    labels, groups = np.repeat([0, 0, 1, 1, 2, 2], 3), np.repeat(list("abbcac"), 3)
    for seed in range(20):
        examples, told = few_shot.draw_examples(labels, groups, 3, np.random.default_rng(seed))
        assert set(labels[told]) <= set(labels[examples])
        assert not set(groups[examples]) & set(groups[told])
    curves = few_shot.few_shot_curves({"network": np.ones((18, 2)) * labels[:, None]}, labels, groups, [1], 8, 0)
    assert (curves["n_cells"] >= 6).all()


def test_more_examples_and_better_features_tell_more():
    features, labels, groups = clusters(between=1.0, groups=6, cells=15)
    noise = np.random.default_rng(1).normal(size=features.shape)
    curves = few_shot.few_shot_curves({"network": features, "random": noise}, labels, groups, [1, 20], 5, 0)
    mean = curves.groupby(["features", "examples"])["balanced_accuracy"].mean()
    assert mean["network", 20] > mean["network", 1] + 0.05
    assert mean["network", 20] > mean["random", 20] + 0.2
    assert mean["random", 20] == pytest.approx(1 / 3, abs=0.15)


def test_a_class_of_one_group_is_no_few_shot_experiment():
    features, labels, groups = clusters(classes=2, groups=1)
    assert few_shot.few_shot_curves({"network": features}, labels, groups, [1], 2, 0).empty


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_of_examples_is_read_as_spreadsheets_write_it(tmp_path, mark):
    text = "\ufefffield,cell,label,note\r\n007,1,round,\r\na b,2,long,seen\r\n".replace(",", mark)
    table = few_shot.read_examples(write(tmp_path / "few.csv", text))
    assert table.to_numpy().tolist() == [["007", 1, "round"], ["a b", 2, "long"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("field,cell\na,1\n", "has no column label"),
        ("field,cell,label\na,0,x\n", r"line 2 \(field a\): cell '0' is not a positive integer"),
        ("field,cell,label\na,1,\n", r"line 2 \(field a\): cell 1 has no label"),
        ("field,cell,label\na,1,x\na,1,y\n", r"line 3 \(field a\): cell 1 appears twice"),
        ("field,cell,label\n\n\na,1,x\na,1,y\n", r"line 5 \(field a\): cell 1 appears twice"),
        ('field,cell,label\na,1,"two\nlines"\nb,0,x\n', r"line 4 \(field b\): cell '0' is not a positive integer"),
        ("field,cell,label\na,1,x, y\n", "line 2: does not have the 3 columns"),
        ("field,cell,label\na,1\n", "line 2: does not have the 3 columns"),
        ("field,cell,label,label\na,1,x,y\n", "has 2 columns label"),
        (
            "field,cell,label\na," + "9" * 5000 + ",x\n",
            r"few\.csv, line 2 \(field a\): cell '9{40}' is not a positive integer",
        ),
        ('field,cell,label\na,1,x\n"a,2,y\n', r"few\.csv, line 3: unexpected end of data"),
        ("field,cell,label\nplaté,1,x\n".encode("latin-1"), r"few\.csv: is not UTF-8 text \(byte 21\)"),
    ],
)
def test_a_mistake_in_the_table_of_examples_is_named(tmp_path, text, message):
    with pytest.raises(SheetError, match=message):
        few_shot.read_examples(write(tmp_path / "few.csv", text))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("g", 1, "x"), ("a", 2, "y")], "there is no field 'g'"),
        ([("a", 99, "x"), ("a", 2, "y")], "field a has no cell 99; its 3 cells are numbered 1 to 3"),
        ([("a", 1, "x"), ("a", 2, "x")], "at least two labels are needed"),
        ([("a", 1, "x"), ("a", 2, "x"), ("a", 3, "y")], "the label 'y' has only one example"),
    ],
)
def test_examples_that_cannot_be_learned_from_are_named(rows, message):
    cells = pd.DataFrame({"field": ["a", "a", "a", "b"], "cell": [1, 2, 3, 1]})
    with pytest.raises(ValueError, match=message):
        few_shot.example_rows(pd.DataFrame(rows, columns=["field", "cell", "label"]), cells)


def labelled(features, labels, groups):
    cells = pd.DataFrame({"field": groups, "cell": np.arange(1, len(labels) + 1)})
    rows = np.concatenate([np.flatnonzero(labels == label)[::8][:6] for label in np.unique(labels)])
    examples = cells.iloc[rows].assign(label=np.array(["dots", "ring", "mesh"])[labels[rows]]).reset_index(drop=True)
    return cells, examples


@pytest.mark.parametrize("learner", few_shot.LEARNERS)
def test_every_cell_gets_a_label_and_the_examples_keep_theirs(learner, tmp_path):
    features, labels, groups = clusters(between=5.0)
    features[5] = 60.0
    cells, examples = labelled(features, labels, groups)
    table, summary = few_shot.assign_labels(cells, features, examples, learner, 0)
    assert len(table) == len(cells)
    true = np.array(["dots", "ring", "mesh"])[labels]
    inside = np.arange(len(true)) != 5
    assert (table["label"] == true)[inside].mean() > 0.9
    given = table[table["given"]].merge(examples, on=["field", "cell"])
    assert len(given) == len(examples)
    assert (given["label_x"] == given["label_y"]).all()
    np.testing.assert_allclose(table[["p_dots", "p_mesh", "p_ring"]].sum(axis=1), 1, atol=1e-5)
    # A cell like no example is told by its similarity, whatever its probability.
    assert table["similarity"].rank()[5] < 10
    checked = summary["cross_validation"]
    assert checked["by"] == "field"
    assert checked["accuracy"] > 0.9
    assert checked["low"] <= checked["accuracy"] <= checked["high"]
    few_shot.write_labels(table, summary, "test", "results/model", tmp_path)
    assert pd.read_parquet(tmp_path / "cells.parquet").shape == table.shape
    assert "saw none of their field" in (tmp_path / "README.md").read_text()


def test_examples_of_one_field_each_are_known_to_flatter():
    features, labels, groups = clusters()
    cells, _ = labelled(features, labels, groups)
    rows = np.concatenate([np.flatnonzero(groups == f"{label}-0")[:4] for label in range(3)])
    examples = cells.iloc[rows].assign(label=labels[rows].astype(str)).reset_index(drop=True)
    _, summary = few_shot.assign_labels(cells, features, examples, "knn", 0)
    assert summary["cross_validation"]["by"] == "cell"
    assert "upper bound" in few_shot.summary_page(summary, "test", "m")


def test_marks_in_a_label_are_no_marks_of_the_page():
    features, labels, groups = clusters()
    cells, examples = labelled(features, labels, groups)
    examples["label"] = examples["label"].replace({"dots": "0|16", "ring": "<b>x"})
    _, summary = few_shot.assign_labels(cells, features, examples, "knn", 0)
    rows = [line for line in few_shot.summary_page(summary, "test", "m").split("\n") if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}
    assert any(line.startswith("| 0\\|16 |") for line in rows)
    assert any(line.startswith("| \\<b>x |") for line in rows)


def predictions(right, groups=12, cells=12):
    """Return cells of ``groups`` proteins, of which a share ``right`` is called right."""
    label = np.repeat(np.arange(groups) % 4, cells)
    called = np.where(np.arange(len(label)) % cells < right * cells, label, (label + 1) % 4)
    table = pd.DataFrame(np.eye(N_CLASSES)[called], columns=[f"p_{index}" for index in range(N_CLASSES)])
    return table.assign(label=label, group=np.repeat([f"HPA{number:02d}" for number in range(groups)], cells))


def test_a_claim_that_fails_is_reported_as_failed():
    cell, protein = claims.cell_claims(predictions(1.0), 0)
    assert (cell.verdict, protein.verdict, cell.value, protein.value) == ("holds", "holds", 1.0, 1.0)
    assert cell.control < 0.6
    cell, protein = claims.cell_claims(predictions(0.8), 0)
    assert (cell.verdict, protein.verdict) == ("failed", "holds")
    assert "0.91 claimed" in cell.sentence
    assert {claim.verdict for claim in claims.cell_claims(pd.DataFrame(), 0)} == {"cannot be tested"}


def test_claims_are_judged_on_the_probabilities_of_cells_alone(tmp_path):
    table = predictions(0.8)
    table = table.assign(field=table["group"], cell=np.arange(len(table)))
    # Leaned on the field, every cell is right.
    table[list(LEANED)] = np.eye(N_CLASSES)[table["label"]]
    table.drop(columns=["label", "group"]).to_parquet(tmp_path / "cells.parquet")
    cells = table[["field", "cell", "label", "group"]].assign(collection="test", seen=False)
    cell, _ = claims.cell_claims(labelled_predictions(cells, {"test": tmp_path / "cells.parquet"}, {}), 0)
    alone = table[list(PROBABILITIES)].to_numpy().argmax(axis=1) == table["label"]
    assert (cell.verdict, cell.value) == ("failed", pytest.approx(alone.mean()))
    # With a regression too; the claims are of the network.
    table = table.rename(columns=dict(zip(PROBABILITIES, NETWORK, strict=True)))
    table[list(PROBABILITIES)] = np.eye(N_CLASSES)[table["label"]]
    table.drop(columns=["label", "group"]).to_parquet(tmp_path / "cells.parquet")
    fused, _ = claims.cell_claims(labelled_predictions(cells, {"test": tmp_path / "cells.parquet"}, {}), 0)
    assert fused.value == cell.value


def test_only_a_protein_of_one_location_has_a_call_to_be_right_about():
    table = predictions(1.0)
    # A protein of two locations: nine of its cells have no single label, three of them are silent.
    mixed = table["group"] == "HPA00"
    table.loc[mixed, "label"] = [-1] * 9 + [18] * 3
    _, protein = claims.cell_claims(table, 0)
    assert protein.sentence.startswith("1.000 of 11 proteins")
    # Proteins of many cells, of no location: that is what is lacking, and not cells.
    table["label"] = np.where(np.arange(len(table)) % 12 < 3, table["label"], -1)
    _, protein = claims.cell_claims(table, 0)
    assert protein.verdict == "cannot be tested"
    assert "half of them of one location" in protein.sentence


def test_predictions_get_label_and_group_of_their_cells(tmp_path):
    columns = {f"p_{index}": 0.0 for index in range(N_CLASSES)}
    pd.DataFrame({"field": ["a", "a", "b"], "cell": [1, 2, 1], **columns}).to_parquet(tmp_path / "cells.parquet")
    cells = pd.DataFrame({"collection": "test", "field": ["a"], "cell": [1], "label": [4], "group": ["HPA1"]})
    predicted = {"test": tmp_path / "cells.parquet"}
    found = labelled_predictions(cells, predictions=predicted, left_out={})
    assert found[["cell", "label", "group"]].to_numpy().tolist() == [[1, 4, "HPA1"], [2, -1, "HPA1"]]
    # What the scores leave out tests nothing: single cells, and whole fields.
    for left_out, kept in (({"field": ["a"], "cell": [1]}, [2]), ({"field": ["a"], "cell": [0]}, [])):
        pd.DataFrame(left_out).to_parquet(tmp_path / "seen.parquet")
        found = labelled_predictions(cells, predicted, {"test": tmp_path / "seen.parquet"})
        assert found["cell"].tolist() == kept


def test_edges_are_told_from_random_kernels():
    y, x = np.indices((7, 7)) - 3.0
    edges = np.stack([(np.cos(turn) * x + np.sin(turn) * y)[..., None] for turn in np.linspace(0, 3, 16)], axis=-1)
    noise = np.random.default_rng(0).normal(size=(7, 7, 3, 400))
    assert claims.edge_share(edges).min() > 0.999
    assert claims.edge_share(noise).mean() == pytest.approx(2 / 48, abs=0.005)
    assert claims.edge_share(np.ones((7, 7, 1, 2))).max() == 0


def layer_table(trained, random):
    rows = [("trained", "stem", 0.2), ("trained", "embedding", trained), ("random", "stem", 0.2)]
    rows.append(("random", "embedding", random))
    table = pd.DataFrame(rows, columns=["network", "layer", "value"]).assign(
        score="knn_accuracy", low=0.0, high=1.0, shuffled=0.1, n_cells=40
    )
    singles = [
        pd.DataFrame({"network": network, "layer": layer, "right": (np.arange(40) % 10 < 10 * value).astype(float)})
        for network, layer, value in rows
    ]
    return table, pd.concat(singles), np.repeat([f"g{number}" for number in range(8)], 5)


@pytest.mark.parametrize(
    ("trained", "random", "verdict"), [(0.8, 0.2, "holds"), (0.8, 0.8, "failed"), (0.2, 0.1, "failed")]
)
def test_deep_layers_must_beat_both_the_stem_and_random_weights(trained, random, verdict):
    table, singles, groups = layer_table(trained, random)
    kernels = {name: np.random.default_rng(1).normal(size=(7, 7, 3, 64)) for name in ("trained", "random")}
    edges, deep = claims.layer_claims(table, singles, groups, kernels, "embedding", False, 0)
    assert deep.verdict == verdict
    # The control is the random network's best layer, here its stem where that is better.
    assert (deep.value, deep.control) == (trained, max(random, 0.2))
    assert edges.verdict == "failed"


def test_few_groups_do_not_test_what_deep_layers_separate():
    table, singles, _ = layer_table(0.8, 0.2)
    kernels = {name: np.ones((7, 7, 3, 4)) for name in ("trained", "random")}
    _, deep = claims.layer_claims(table, singles, np.arange(40) % 5, kernels, "embedding", False, 0)
    assert deep.verdict == claims.UNTESTED
    assert "fewer than 6 groups" in deep.sentence


def unit_table(share, strength, left_out):
    p = np.where(np.arange(100) < 100 * share, 0.005, 1.0)
    table = pd.DataFrame({"layer": "deep", "unit": np.arange(100), "r": strength, "information": strength})
    table = table.assign(r_p_all=p, information_p_all=p)
    layers = [
        {"layer": "deep", "what": what, "units": 100, "median": strength, "shuffled": 0.1, "significant": share}
        for what in ("r", "information")
    ]
    return units.UnitTable(table, pd.DataFrame(layers), {"r": left_out, "information": left_out})


@pytest.mark.parametrize(
    ("share", "strength", "spread", "verdict"),
    [(0.3, 0.5, 0.001, "holds"), (0.3, 0.5, 0.2, "failed"), (0.1, 0.5, 0.001, "failed"), (0.3, 0.3, 0.001, "failed")],
)
def test_units_must_beat_chance_and_random_weights_beyond_the_choice_of_groups(share, strength, spread, verdict):
    changes = np.array([-1, 1] * 5) * spread
    random = unit_table(0.1, 0.4, np.full(10, 0.4))
    found = claims.unit_claims({"trained": unit_table(share, strength, strength + changes), "random": random}, False)
    assert [claim.verdict for claim in found] == [verdict] * 2
    assert (found[0].value, found[0].control) == (share, 0.1)
    assert "0.100 with features and labels of other groups" in found[0].sentence


def curves(network, cellprofiler, random):
    rows = [
        (space, "logistic_regression", 10, draw, value + 0.001 * draw)
        for space, value in (("network", network), ("CellProfiler", cellprofiler), ("random", random))
        for draw in range(20)
    ]
    return pd.DataFrame(rows, columns=["features", "learner", "examples", "draw", "balanced_accuracy"])


def test_transfer_is_claimed_of_unseen_classes_only_and_against_both_controls():
    judge = claims.few_shot_claim
    assert judge(curves(0.8, 0.6, 0.5), ["Golgi"], "logistic_regression", 10).verdict == "holds"
    behind = judge(curves(0.6, 0.8, 0.5), ["Golgi"], "logistic_regression", 10)
    assert behind.verdict == "failed"
    assert "0.810 on CellProfiler features (worse in 0% of draws)" in behind.sentence
    # The control that stands beside the number is the one that it failed by.
    assert (behind.value, behind.control) == (pytest.approx(0.6095), pytest.approx(0.8095))
    seen = judge(curves(0.8, 0.6, 0.5), [], "logistic_regression", 10)
    assert seen.verdict == "cannot be tested"
    assert "was trained on these classes" in seen.sentence


def test_mixtures_are_held_against_fractions_of_other_fields():
    true = np.linspace(0, 1, 11)
    fields = pd.DataFrame({"field": [f"f{number}" for number in range(11)]})
    for index in range(N_CLASSES):
        fields[f"fraction_{index}"] = 0.0
    fields["fraction_2"], fields["fraction_14"] = true * 0.8, (1 - true) * 0.8
    mixtures = pd.DataFrame(
        {"ID": fields["field"], "label_a": 2, "fraction_a": true, "label_b": 14, "fraction_b": 1 - true}
    )
    scores = score_mixtures(fields, mixtures, 0)
    assert scores["correlation"] == pytest.approx(1)
    assert scores["mean_absolute_error"] == pytest.approx(0, abs=1e-9)
    assert claims.mixture_claim(scores).verdict == "holds"
    # Three fields in the right order are what one shuffle in six gives.
    few = score_mixtures(fields, mixtures.iloc[[0, 5, 10]], 0)
    assert few["correlation"] == pytest.approx(1)
    assert claims.mixture_claim(few).verdict == "failed"
    assert "of 3 fields correlate" in claims.mixture_claim(few).sentence
    fields[["fraction_2", "fraction_14"]] = fields[["fraction_14", "fraction_2"]].to_numpy()
    assert claims.mixture_claim(score_mixtures(fields, mixtures, 0)).verdict == "failed"
    assert claims.mixture_claim(None).verdict == "cannot be tested"
    with pytest.raises(ValueError, match="none of its fields is predicted, such as f0, f1"):
        score_mixtures(fields.iloc[:0], mixtures, 0)


def test_known_mixtures_keep_the_names_of_their_fields(tmp_path):
    text = "ID,label_a,fraction_a,label_b,fraction_b\n007,2,0.25,14,0.75\nNA,2,1,14,0\n"
    found = read_known_mixtures(write(tmp_path / "mixtures.csv", text))
    assert found.to_numpy().tolist() == [["007", 2, 0.25, 14, 0.75], ["NA", 2, 1.0, 14, 0.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,label_a,fraction_a,label_b\n", "has no column fraction_b"),
        (
            "ID,label_a,fraction_a,label_b,fraction_b\nf,19,1,2,1\n",
            r"line 2 \(ID f\): label_a: unknown label '19'",
        ),
        (
            "ID,label_a,fraction_a,label_b,fraction_b\nf,1,x,2,1\n",
            r"line 2 \(ID f\): fraction_a 'x' is not a number of at least 0",
        ),
        ("ID,label_a,fraction_a,label_b,fraction_b\nf,1,0,2,0\n", r"line 2 \(ID f\): its fractions are both 0"),
        ("ID,label_a,fraction_a,label_b,fraction_b\nf,1,1,2\n", "line 2: does not have the 5 columns"),
        (
            "ID,label_a,fraction_a,label_b,fraction_b\nf,1,1,2,1\nf,1,1,2,1\n",
            r"line 3 \(ID f\): the field appears twice",
        ),
        ("é".encode("latin-1"), r"is not UTF-8 text \(byte 0\)"),
        ("", "has no column ID"),
    ],
)
def test_a_mistake_in_the_table_of_mixtures_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"mixtures\.csv(: |, ){message}"):
        read_known_mixtures(write(tmp_path / "mixtures.csv", text))


def test_nothing_is_claimed_of_the_training_of_a_network_from_elsewhere():
    chosen = pd.DataFrame({"collection": ["test"]})
    rows = np.arange(1)
    for here, said in ((True, "none of them trained the network"), (False, "comes from elsewhere (model.path)")):
        assert said in _notes(chosen, rows, rows, np.array(["g"]), False, [], "stem", here)[0]


def test_claims_are_written_with_verdict_number_and_control(tmp_path):
    claims.write_claims([claims.Claim("units know", "failed", "It is so.", 0.5, 0.6)], tmp_path, ["A note."])
    page = (tmp_path / "claims.md").read_text()
    assert "| units know | failed | 0.500 | 0.600 |" in page
    assert "**Units know: failed.** It is so." in page
    assert json.loads((tmp_path / "claims.json").read_text())[0]["control"] == 0.6


@pytest.fixture(scope="module")
def field():
    return simulate_field("f", (2,), 3, shape=(256, 256), pixel_size=0.32)


def test_cellprofiler_features_are_those_of_the_cell_asked_for(field):
    ids = [int(cell) for cell in np.unique(field.cells)[1:]]
    levels = dict.fromkeys(field.images, (0.0, 255.0))
    every = measure_cells(field.images, field.cells, ids, levels, 0.32)
    assert len(every) == len(ids)
    np.testing.assert_allclose(every["Area"], [(field.cells == cell).sum() for cell in ids])
    green = [field.images["green"][field.cells == cell].mean() / 255 for cell in ids]
    np.testing.assert_allclose(every["Intensity_MeanIntensity_green"], green, rtol=1e-5)
    # The lowest of 64 grey levels, which counts as no light, ends between 4 and 5 of 255.
    dim = {colour: np.full_like(image, 4) for colour, image in field.images.items()}
    assert measure_cells(dim, field.cells, ids[:1], levels, 0.32)["Texture_Contrast_3_green"].isna().all()
    faint = {colour: np.full_like(image, 5) for colour, image in field.images.items()}
    assert measure_cells(faint, field.cells, ids[:1], levels, 0.32)["Texture_Contrast_3_green"].notna().all()
    # In any order, and whatever else is measured.
    some = measure_cells(field.images, field.cells, ids[::-2], levels, 0.32)
    np.testing.assert_allclose(some["Texture_Contrast_3_green"], every["Texture_Contrast_3_green"].iloc[::-2])
    assert not [name for name in every if "Location" in name or "Center" in name]
    with pytest.raises(ValueError, match="cell 999 is not in the label image"):
        measure_cells(field.images, field.cells, [999], levels, 0.32)


def test_fine_pixels_are_measured_at_the_common_size(field):
    wide = {colour: np.kron(image, np.ones((2, 2), np.uint8)) for colour, image in field.images.items()}
    cells = np.kron(field.cells, np.ones((2, 2), field.cells.dtype))
    ids = [int(cell) for cell in np.unique(cells)[1:4]]
    levels = dict.fromkeys(field.images, (0.0, 255.0))
    coarse = measure_cells(field.images, field.cells, ids, levels, 0.24)
    fine = measure_cells(wide, cells, ids, levels, 0.12)
    np.testing.assert_allclose(fine["Area"], coarse["Area"], rtol=0.01)
    np.testing.assert_allclose(fine["Texture_Contrast_3_red"], coarse["Texture_Contrast_3_red"], rtol=0.05)


def test_the_names_of_the_locations_are_those_of_the_units():
    _, labels, groups = clusters()
    answers = np.stack([labels == 0, labels == 1], axis=1) + 0.01 * np.random.default_rng(0).normal(
        size=(len(labels), 2)
    )
    table = pd.DataFrame({"a": answers[:, 0]})
    found = units.describe_units({"deep": answers}, table, labels, groups, permutations=19, seed=0)
    assert found.units["location"].tolist() == [NAMES[0], NAMES[1]]
