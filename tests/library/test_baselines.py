"""Baselines: what they learn, how the network compares with them, and what a model folder keeps of them."""

import json

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpaloc.accounting import baseline_lines
from hpaloc.baselines.columns import describe_shape_and_light
from hpaloc.baselines.learning import BaselineError, learn_baselines
from hpaloc.baselines.light import N_MEASUREMENTS, describe_light
from hpaloc.baselines.prediction import predict_baselines, read_measures
from hpaloc.baselines.record import MEASURES_EDITION, load_baselines, training_shares
from hpaloc.baselines.regression import apply_regression, fit_regression
from hpaloc.classes import N_CLASSES, NAMES, label_matrix
from hpaloc.evaluation.baselines import compare, score_baselines, tabulate_baselines
from hpaloc.evaluation.cells import score_cells
from hpaloc.evaluation.collection import evaluate_collection
from hpaloc.examples import EXAMPLES
from hpaloc.files import write_json
from hpaloc.network.folder import write_checksums
from hpaloc.network.options import LEVELS_EDITION, ModelError
from hpaloc.tables import CELLS, TableError, to_table, write_table

P = [f"p_{index}" for index in range(N_CLASSES)]


def measured(labels, seed=0, width=6):
    """Return measurements whose first numbers tell the labels apart, with one that is undefined and one constant."""
    measures = np.random.default_rng(seed).normal(0, 0.3, (len(labels), width)).astype(np.float32)
    measures[:, 0] += np.where(labels == 3, 3, 0)
    measures[:, 1] += np.where(labels == 16, 3, 0)
    measures[:, -2] = 7
    measures[::5, -1] = np.nan
    return measures


def test_a_regression_learns_what_measurements_tell():
    labels = np.array([0, 3, 16] * 60)
    learned = fit_regression(measured(labels), label_matrix([(label,) for label in labels]), np.ones(180))
    assert learned["classes"] == [NAMES[label] for label in (0, 3, 16)]
    p = apply_regression(json.loads(json.dumps(learned)), measured(labels, 1))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == labels).mean() > 0.95
    assert not p[:, 5].any()


def test_two_locations_and_one_are_regressions_too():
    labels = np.array([0, 3] * 60)
    two = fit_regression(measured(labels), label_matrix([(label,) for label in labels]), np.ones(120))
    p = apply_regression(two, measured(labels, 1))
    assert (p.argmax(axis=1) == labels).mean() > 0.95
    one = fit_regression(measured(labels), label_matrix([(3,)] * 120), np.ones(120))
    assert apply_regression(one, measured(labels))[:, 3].tolist() == [1] * 120


def test_a_cell_of_two_locations_counts_half_for_each():
    both = [(0, 3)] * 50 + [(16,)] * 50
    p = apply_regression(
        fit_regression(measured(np.repeat([3, 16], 50)), label_matrix(both), np.ones(100)), measured(np.full(9, 3), 2)
    )
    np.testing.assert_allclose(p[:, 0], p[:, 3], atol=0.01)
    assert (p[:, 0] > 0.4).all()


def test_cells_without_nucleus_are_described():
    cells = pd.DataFrame({name: np.ones(3) for name in CELLS.names}).assign(field="f", y1=21.0, x1=[11.0, 21.0, 41.0])
    cells.loc[1, ["nucleus_area_um2", "green_nucleus_mean", "green_nucleus_cytoplasm_ratio"]] = np.nan
    fields = pd.DataFrame({"field": ["f"], "green_background": [0.0], "green_white": [2.0]})
    described = describe_shape_and_light(cells, fields)
    assert described.shape == (3, 17)
    assert np.isfinite(described[[0, 2]]).all()
    assert np.isnan(described[1]).sum() == 3
    # Brightness is relative to the field, so a field that is stored with other levels is described alike.
    ends = ("mean", "std", "median", "p99", "peak")
    levels = [name for name in CELLS.names if name.startswith("green_") and name.endswith(ends)]
    scaled = cells.assign(**{name: cells[name] * 257 for name in levels})
    fields[["green_background", "green_white"]] *= 257
    np.testing.assert_allclose(describe_shape_and_light(scaled, fields), described)


def predicted(labels, right, seed=0):
    """Return probabilities whose most likely class is right in a share of the cells."""
    generator = np.random.default_rng(seed)
    called = np.where(generator.random(len(labels)) < right, labels, (labels + 1) % N_CLASSES)
    p = generator.random((len(labels), N_CLASSES)) * 0.1
    p[np.arange(len(labels)), called] += 0.8
    return p


LABELS = np.repeat([0, 3, 16, 16], 100)
GROUPS = np.repeat(np.arange(40), 10)
SHARES = np.eye(N_CLASSES)[[0, 16, 16, 16]].mean(axis=0)


def compared(right, baseline, learned=True, groups=GROUPS):
    labels = label_matrix([(label,) for label in LABELS])
    p = predicted(LABELS, right)
    known = {"logistic_regression": predicted(LABELS, baseline, 1)} if learned else {}
    rivals = score_baselines(p, labels, groups, known, SHARES, replicates=200)
    return score_cells(p, labels), rivals, compare(score_cells(p, labels), rivals, learned)


def test_chance_and_majority_by_hand():
    _, rivals, _ = compared(0.9, 0.7)
    # Class 16 is most of the training and half of these cells; class 3 never trained.
    assert rivals["majority"]["accuracy"] == 0.5
    assert rivals["majority"]["balanced_accuracy"] == pytest.approx(1 / 3)
    assert rivals["majority"]["macro_ap"] == pytest.approx(1 / 3)
    assert rivals["chance"]["accuracy"] == pytest.approx((0.25 * 100 + 0.75 * 200) / 400)
    assert rivals["chance"]["balanced_accuracy"] == pytest.approx(1 / 3)
    assert rivals["chance"]["macro_auc"] == 0.5
    assert set(rivals["chance"]["ci95"].values()) == {None}


def test_a_network_that_is_better_worse_or_equal_is_called_so():
    network, rivals, better = compared(0.9, 0.7)
    low, high = better["ci95"]
    assert better["accuracy"] == pytest.approx(network["accuracy"] - rivals["logistic_regression"]["accuracy"])
    assert 0 < low < better["accuracy"] < high
    assert "beats its best baseline, a logistic regression on shape and light, by 0.147 (" in better["sentence"]
    worse = compared(0.7, 0.9)[2]
    assert worse["accuracy"] < 0
    assert "is worse than its best baseline, a logistic regression on shape and light, by 0.265 (" in worse["sentence"]
    assert "does not measurably differ from its best baseline" in compared(0.8, 0.74)[2]["sentence"]
    alone = compared(0.9, 0.7, groups=np.zeros(400))[2]
    assert alone["ci95"] is None
    assert "no interval" in alone["sentence"]
    # The range of five values is no interval of 95 % yet.
    few = compared(0.9, 0.3, groups=np.arange(400) % 5)[2]
    assert few["ci95"] is None
    assert "of the training, differ by +0.375 (no interval, as there are fewer than 6 groups)" in few["sentence"]
    assert compared(0.9, 0.3, groups=np.arange(400) % 6)[2]["ci95"] is not None


def test_differences_are_of_the_same_cells():
    """Cells that both call wrong widen the interval of each score and not that of the difference."""
    labels = label_matrix([(label,) for label in LABELS])
    hard = GROUPS % 2 == 0
    p, other = (np.where(hard[:, None], np.roll(labels, 1, axis=1), labels) for _ in range(2))
    other = other.copy()
    other[1::20] = np.roll(labels[1::20], 2, axis=1)
    rivals = score_baselines(p, labels, GROUPS, {"logistic_regression": other}, None, replicates=200)
    low, high = rivals["logistic_regression"]["difference"]["ci95"]["accuracy"]
    own = score_cells(p, labels, GROUPS)["ci95"]["accuracy"]
    assert high - low < 0.1 * (own[1] - own[0])


def test_a_model_without_learned_baselines_says_so():
    _, rivals, alone = compared(0.9, 0, learned=False)
    assert list(rivals) == ["majority", "chance"]
    assert alone["baseline"] == "majority"
    assert "the model folder has no learned baselines (baselines.json)" in alone["sentence"]
    assert compare(score_cells(predicted(LABELS, 1), label_matrix([(0, 3)] * 400)), rivals, True) is None


def test_the_table_has_a_row_for_the_network_and_each_baseline():
    network, rivals, better = compared(0.9, 0.7)
    network["ci95"] = dict.fromkeys(network["ci95"] | network)
    table = tabulate_baselines(network, rivals, better).set_index("predictor")
    assert list(table.index) == ["network", "logistic_regression", "majority", "chance"]
    gap = table["accuracy"]["network"] - table["accuracy"]["majority"]
    assert table["network_minus_it_accuracy"]["majority"] == pytest.approx(gap)
    assert table.loc["majority", "network_minus_it_accuracy_low"] < gap
    assert table.loc[["network", "chance"], "network_minus_it_accuracy"].isna().all()


def test_baselines_are_scored_on_the_cells_of_the_network():
    generator = np.random.default_rng(3)
    cells = pd.DataFrame({"field": [f"f{i // 10}" for i in range(100)], "cell": np.arange(100) % 10 + 1})
    labels = np.repeat([0, 3, 16, 16, 0], 20)
    own = cells.assign(labels="0", **dict(zip(P, predicted(labels, 0.9).T, strict=True)))
    fields = pd.DataFrame(
        {
            "field": [f"f{i}" for i in range(10)],
            "sheet_labels": np.repeat(["0", "3", "16", "", "0|3"], 2),
            "antibody": "",
        }
    )
    table = cells.assign(**dict(zip(P, predicted(labels, 0.6, 1).T, strict=True)))
    known = table[:60]
    shuffled = table.iloc[generator.permutation(100)]
    result = evaluate_collection(own, fields, baselines={"logistic_regression": shuffled}, shares=SHARES)
    right = (known[P].to_numpy().argmax(axis=1) == labels[:60]).mean()
    assert result.metrics["baselines"]["logistic_regression"]["accuracy"] == pytest.approx(right)
    rows = result.tables["scores"].set_index(["level", "score"])["value"]
    assert rows["logistic_regression", "accuracy"] == pytest.approx(right)
    assert "chance" in rows.index
    with pytest.raises(ValueError, match="field f1, cell 1: predicted by the network, but not by the baseline frozen"):
        evaluate_collection(own, fields, baselines={"frozen_network": table.drop(10)}, shares=SHARES)


def test_the_end_of_a_run_says_how_the_network_compares(tmp_path):
    network, rivals, better = compared(0.9, 0.7)
    network["ci95"] = dict.fromkeys(network)
    table = tabulate_baselines(network, rivals, better).assign(collection="test")
    table.to_csv(tmp_path / "baselines.csv", index=False)
    assert baseline_lines(tmp_path / "baselines.csv") == [f"test: {better['sentence']}"]
    table[:0].to_csv(tmp_path / "baselines.csv", index=False)
    assert baseline_lines(tmp_path / "baselines.csv") == []


@pytest.fixture
def trained(tmp_path):
    """Write a model folder, the examples of its training, and the measurements of their cells in two shards."""
    labels = np.array([0, 3, 16] * 40)
    cells = pd.DataFrame({"field": [f"f{i // 10}" for i in range(120)], "cell": np.arange(120) % 10 + 1})
    examples = cells.assign(
        part=np.where(np.arange(120) < 90, "train", "validation"),
        origin="real", green_scale=1.0, weight=1.0, labels=labels.astype(str), **{
            f"label_{index}": (labels == index).astype(np.uint8) for index in range(N_CLASSES)
        },
    )  # fmt: skip
    # A copy of a cell with dimmed green is not among the cells that are measured.
    examples = pd.concat([examples, examples[:1].assign(origin="synthetic", field="none")], ignore_index=True)
    write_table(tmp_path / "examples.parquet", to_table(examples.reindex(columns=EXAMPLES.names), EXAMPLES))
    paths = []
    for shard, rows in enumerate((slice(60), slice(60, None), slice(0))):
        paths.append(tmp_path / f"{shard}.parquet")
        lists = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values[rows].ravel()), values.shape[1])
            for name, values in (("measures", measured(labels)), ("outputs", measured(labels, 1).astype(np.float16)))
        }
        pq.write_table(pa.table({"field": cells["field"][rows], "cell": cells["cell"][rows], **lists}), paths[-1])
    folder = tmp_path / "model"
    folder.mkdir()
    counts = {name: int((labels[:90] == index).sum()) for index, name in enumerate(NAMES)}
    config = {"channels": ["red", "green", "blue"], "head": "sigmoid", "input_size": 64, "units": 512}
    config |= {"dropout": [0.5, 0.25], "classes": list(NAMES), "preprocessing": {"levels": LEVELS_EDITION}}
    write_json(folder / "config.json", config | {"examples": {"train": counts}})
    write_json(folder / "thresholds.json", {"thresholds": None, "negative_rule": "network"})
    write_checksums(folder, ("config.json", "thresholds.json"))
    return folder, tmp_path / "examples.parquet", paths, labels


def test_what_is_learned_travels_with_the_model_folder(trained):
    folder, examples, paths, labels = trained
    assert load_baselines(folder) is None
    learn_baselines(folder, examples, paths)
    first = (folder / "baselines.json").read_bytes()
    learned = load_baselines(folder)
    assert learned["cells"] == 90
    assert learned["validation_accuracy"]["logistic_regression"] > 0.9
    found = predict_baselines([learned], paths)
    assert list(found) == ["logistic_regression", "frozen_network"]
    for table in found.values():
        assert list(table) == ["field", "cell", *P]
        assert (table[P].to_numpy().argmax(axis=1) == labels).mean() > 0.9
    learn_baselines(folder, examples, paths)
    assert (folder / "baselines.json").read_bytes() == first
    assert training_shares([folder])[[0, 3, 16]].tolist() == pytest.approx([1 / 3] * 3)


def test_the_baselines_of_a_fold_predict_the_fields_that_it_leaves_out(trained):
    folder, examples, paths, labels = trained
    learn_baselines(folder, examples, paths)
    learned = load_baselines(folder)
    # A second fold whose baseline knows one location only.
    width = len(learned["logistic_regression"]["mean"])
    one_location = fit_regression(np.zeros((4, width)), label_matrix([(5,)] * 4), np.ones(4))
    other = learned | {"logistic_regression": one_location}
    fold_of = pd.Series({f"f{i}": 1 + i % 2 for i in range(12)})
    found = predict_baselines([learned, other], paths, fold_of)
    assert list(found) == ["logistic_regression", "frozen_network"]
    table, all_of_first = found["logistic_regression"], predict_baselines([learned], paths)["logistic_regression"]
    assert len(table) == len(labels)
    second = table["field"].map(fold_of) == 2
    assert (table.loc[second, "p_5"] == 1).all()
    first = all_of_first["field"].map(fold_of) == 1
    pd.testing.assert_frame_equal(table[~second].reset_index(drop=True), all_of_first[first].reset_index(drop=True))


def test_a_validation_cell_changes_no_coefficient(trained):
    folder, examples, paths, _ = trained
    learn_baselines(folder, examples, paths)
    before = load_baselines(folder)
    table = pd.read_parquet(examples)
    table.loc[table["part"] == "validation", ["label_0", "label_3", "label_16"]] = [0, 0, 1]
    write_table(examples, to_table(table, EXAMPLES))
    learn_baselines(folder, examples, paths)
    after = load_baselines(folder)
    assert after["logistic_regression"] == before["logistic_regression"]
    assert after["validation_accuracy"] != before["validation_accuracy"]


def test_changed_and_foreign_baselines_are_refused(trained):
    folder, examples, paths, _ = trained
    learn_baselines(folder, examples, paths)
    learned = load_baselines(folder)
    for key, value, told in (
        ("classes", ["Nowhere"], "classes is"),
        ("scale", [0.0] * 6, "scale is not 6 numbers"),
        ("coefficients", [[1.0]], "coefficients is not 3 x 6 numbers"),
        ("intercept", [float("nan")] * 3, "intercept is not 3 numbers"),
        ("mean", None, "mean is not 0 numbers"),
    ):
        content = learned | {"frozen_network": learned["frozen_network"] | {key: value}}
        (folder / "baselines.json").write_text(json.dumps(content))
        write_checksums(folder, ("checksums.json", "baselines.json"), to="baselines.checksums.json")
        with pytest.raises(ModelError, match=rf"baselines\.json: frozen_network\.{told}"):
            load_baselines(folder)
    learn_baselines(folder, examples, paths)
    (folder / "baselines.json").write_text(json.dumps(learned) + " ")
    with pytest.raises(ModelError, match=r"baselines\.json was changed"):
        load_baselines(folder)
    learn_baselines(folder, examples, paths)
    for edition in (0, MEASURES_EDITION + 1):
        (folder / "baselines.json").write_text(json.dumps(learned | {"measures": edition}))
        write_checksums(folder, ("checksums.json", "baselines.json"), to="baselines.checksums.json")
        with pytest.raises(ModelError, match=rf"baselines\.json: .* edition {edition}, but cells are"):
            load_baselines(folder)
    learn_baselines(folder, examples, paths)
    # They are of one network.
    (folder / "checksums.json").write_text("{}")
    with pytest.raises(ModelError, match=r"checksums\.json was changed"):
        load_baselines(folder)


def test_other_measurements_and_cells_that_were_not_measured_are_errors(trained):
    folder, examples, paths, _ = trained
    learn_baselines(folder, examples, paths)
    learned = load_baselines(folder)
    learned["logistic_regression"]["mean"].append(0.0)
    with pytest.raises(ModelError, match="takes 7 measurements of a cell, but this version makes 6"):
        predict_baselines([learned], paths)
    with pytest.raises(BaselineError, match="cell 1 of field f6 trains the network, but was not measured"):
        learn_baselines(folder, examples, paths[:1])


def test_the_share_of_each_location_is_unknown_of_an_older_folder(trained):
    folder = trained[0]
    config = json.loads((folder / "config.json").read_text())
    for examples in (None, {}, {"train": {}}):
        write_json(folder / "config.json", config | {"examples": examples})
        assert training_shares([folder]) is None
    write_json(folder / "config.json", config | {"examples": {"train": {NAMES[0]: -1}}})
    with pytest.raises(ModelError, match=r"config\.json: examples\.train"):
        training_shares([folder])


def round_cell(side=128, nucleus=0.3, pixel_size=0.25):
    """Return the outlines of a round cell and of its round nucleus, and the distance from their middle, µm."""
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot(rows - side / 2 + 0.5, columns - side / 2 + 0.5)
    cell = distance < 0.45 * side
    return cell, distance < nucleus * 0.45 * side, distance * pixel_size


def lit(light, pixel_size=0.25, side=128):
    """Return the description of a round cell whose light is a function of the distance from its middle and the cell."""
    cell, nucleus, distance = round_cell(side, pixel_size=pixel_size)
    return describe_light({"green": light(distance, cell)}, cell, nucleus, pixel_size)


def test_light_at_the_edge_of_the_cell_in_the_nucleus_and_in_between_is_told_apart():
    edge = lit(lambda distance, cell: 1.0 + 5 * (distance > 12.5) * cell)
    nuclear = lit(lambda distance, cell: 0.1 + 5 * (distance < 4))
    # Mean light by depth in the nucleus (4), by distance from it (5), by depth in the cell (4), outermost first.
    assert edge[9] > np.log(2) > 0 > edge[12]
    assert nuclear[9] < np.log(0.5)
    assert nuclear[0] < nuclear[3]
    flat = lit(lambda distance, cell: np.ones_like(distance))
    np.testing.assert_allclose(flat[:13][np.isfinite(flat[:13])], 0, atol=0.02)


def test_descriptions_of_light_do_not_follow_its_unit_or_the_direction_of_the_cell():
    rng = np.random.default_rng(0)
    cell, nucleus, _ = round_cell()
    cell[:40] = False
    planes = {colour: cv2.GaussianBlur(rng.random(cell.shape), (0, 0), 2) * cell for colour in ("green", "red")}
    described = describe_light(planes, cell, nucleus, 0.25)
    doubled = describe_light({colour: 50 * plane for colour, plane in planes.items()}, cell, nucleus, 0.25)
    np.testing.assert_allclose(doubled, described, rtol=1e-3, atol=1e-3)
    turned = describe_light(
        {colour: np.rot90(plane).copy() for colour, plane in planes.items()}, np.rot90(cell), np.rot90(nucleus), 0.25
    )
    np.testing.assert_allclose(turned, described, rtol=0.02, atol=0.02)
    # Without blue and yellow.
    assert np.isnan(described).sum() == 12


# Places of the description: brightest pixels of cytoplasm and nucleus, light in one direction, ridges, percentiles.
OF_CYTOPLASM, OF_NUCLEUS, DIRECTION, RIDGES = slice(13, 21), slice(21, 29), 29, slice(30, 36)
PERCENTILES_OF_NUCLEUS, PERCENTILES_OF_CYTOPLASM, WITH_RED = slice(36, 41), slice(41, 46), slice(46, 52)


def speckled(places, radius=4, **others):
    """Return the description of a round cell with bright spots of a radius at places (row, column), px."""
    cell, nucleus, _ = round_cell()
    green = np.full(cell.shape, 0.2)
    for row, column in places:
        cv2.circle(green, (column, row), radius, 5.0, -1)
    return describe_light({"green": green, **others}, cell, nucleus, 0.25)


def test_spots_are_described_by_their_number_place_and_direction():
    around = [(round(64 + 38 * np.sin(angle)), round(64 + 38 * np.cos(angle))) for angle in np.arange(12) * np.pi / 6]
    one, many = speckled(around[:1], 11), speckled(around)
    assert np.exp(one[OF_CYTOPLASM][3]) == pytest.approx(1)
    assert np.exp(many[OF_CYTOPLASM][3]) == pytest.approx(12)
    assert many[OF_CYTOPLASM][0] > one[OF_CYTOPLASM][0] + np.log(2)
    assert one[OF_CYTOPLASM][2] > 0.9 > 0.3 > many[OF_CYTOPLASM][2]
    assert one[DIRECTION] > 0.3 > 0.1 > many[DIRECTION]
    # Spots of the nucleus are not those of the cytoplasm.
    inside = speckled([(64, 58), (64, 70)])
    assert np.exp(inside[OF_NUCLEUS][3]) == pytest.approx(2)
    assert inside[PERCENTILES_OF_NUCLEUS][-1] > inside[PERCENTILES_OF_CYTOPLASM][-1] + 0.5


def test_ridges_are_told_from_spots():
    cell, nucleus, _ = round_cell()
    rows, columns = np.indices(cell.shape)
    stripes = describe_light({"green": 1 + np.sin(columns * 0.8)}, cell, nucleus, 0.25)[RIDGES]
    spots = describe_light({"green": 2 + np.sin(columns * 0.8) + np.sin(rows * 0.8)}, cell, nucleus, 0.25)[RIDGES]
    assert stripes[0] > spots[0] + 0.5
    assert stripes[1] < spots[1] - 0.5


def test_green_is_compared_with_another_colour_and_its_grains():
    rng = np.random.default_rng(3)
    cell, nucleus, _ = round_cell()
    fine = cv2.GaussianBlur(rng.random(cell.shape), (0, 0), 1.5)
    same, opposite = (
        describe_light({"green": fine, "red": red}, cell, nucleus, 0.25)[WITH_RED] for red in (fine, 1 - fine)
    )
    np.testing.assert_allclose(same, 1)
    np.testing.assert_allclose(opposite, -1)


def test_a_nucleus_at_the_edge_of_its_tile_ends_there():
    cell, nucleus, _ = round_cell()
    cell, nucleus = (np.roll(mask, -52, axis=1) & (np.arange(128) < 70) for mask in (cell, nucleus))
    green = np.full(cell.shape, 1.0)
    green[:, :3] = 6
    assert nucleus[:, 0].any()
    assert describe_light({"green": green}, cell, nucleus, 0.25)[0] > 0.3


def test_a_cell_without_a_nucleus_light_or_cytoplasm_is_described_as_far_as_it_can_be():
    cell, nucleus, distance = round_cell()
    none = np.zeros_like(nucleus)
    without = describe_light({"green": 1 + distance}, cell, none, 0.25)
    assert np.isnan(without[:9]).all()
    assert np.isfinite(without[9:13]).all()
    assert np.isnan(describe_light({"green": 0 * distance}, cell, nucleus, 0.25)).all()
    assert np.isnan(describe_light({"green": 1 + distance}, nucleus, nucleus, 0.25)).all()


def measure_fields(folder, rows, segmentation, out, colours=("red", "green", "blue"), **options):
    """Tile and measure fields of ``tile_fields.write_shard``; return the table of cells, and the measurements."""
    from tile_fields import tile

    from hpaloc.baselines.measures import measure_shard

    (folder / out).mkdir()
    cells, fields, tiles = tile(rows, segmentation, folder / out, **options)
    measure_shard(cells, fields, segmentation, tiles, folder / out / "measured", colours, 64, 5, gpu="none")
    return pd.read_parquet(cells), folder / out / "measured"


def measure_again(folder, segmentation):
    """Measure the cells of a folder of ``measure_fields`` by other masks."""
    from hpaloc.baselines.measures import measure_shard

    tiles = {colour: folder / f"{colour}.tfrecord" for colour in ("red", "green", "blue")}
    measure_shard(
        folder / "cells.parquet", folder / "fields.parquet", segmentation, tiles, folder / "again", [*tiles], 64
    )


def test_cells_are_measured_alike_in_every_run(tmp_path):
    from tile_fields import make_field, tile, write_shard

    from hpaloc.baselines.measures import measure_shard

    rows, segmentation = write_shard(tmp_path, {"a": make_field(0), "b": make_field(1)})
    cells, once = measure_fields(tmp_path, rows, segmentation, "once")
    assert once.read_bytes() == measure_fields(tmp_path, rows, segmentation, "again")[1].read_bytes()
    ids, measures = read_measures([once])
    assert ids.to_numpy().tolist() == cells[["field", "cell"]].to_numpy().tolist()
    assert measures["measures"].shape == (len(cells), 17 + N_MEASUREMENTS)
    outputs = measures["outputs"]
    assert outputs.shape == (len(cells), 512)
    assert np.isfinite(outputs).all()
    assert np.ptp(outputs, axis=0).max() > 0.1
    _, fields, tiles = tile(rows, segmentation, tmp_path / "once")
    for others in (cells[::-1], cells[1:]):
        write_table(tmp_path / "cells.parquet", to_table(others.reindex(columns=CELLS.names), CELLS))
        with pytest.raises(TableError, match=r"red\.tfrecord are not those of the cells in .*cells\.parquet"):
            measure_shard(
                tmp_path / "cells.parquet", fields, segmentation, tiles, tmp_path / "no", ("red", "green"), 64
            )


def test_masks_that_are_not_those_of_the_cells_are_named(tmp_path):
    from tile_fields import make_field, write_shard

    from hpaloc.masks import read_mask, write_mask

    rows, segmentation = write_shard(tmp_path, {"a": make_field(0)})
    path = segmentation / "a_cellmask.png"
    mask = read_mask(path)
    for number, other in enumerate((np.where(mask == 2, 0, mask), mask[:-1])):
        measure_fields(tmp_path, rows, segmentation, f"before{number}")
        write_mask(path, other)
        said = r"a_cellmask\.png: (has no cell 2 in its place|is \(\d+, \d+\), but the field was)"
        with pytest.raises(TableError, match=said):
            measure_again(tmp_path / f"before{number}", segmentation)
        write_mask(path, mask)


def test_light_is_measured_by_the_outlines_whatever_the_tile(tmp_path):
    from tile_fields import make_field, write_shard

    rows, segmentation = write_shard(tmp_path, {"a": make_field(0)})
    small, large = (measure_fields(tmp_path, rows, segmentation, f"of{size}", size=size) for size in (64, 128))
    light = [read_measures([path])[1]["measures"][:, 17:] for _, path in (small, large)]
    assert (small[0]["nucleus_area_px"] > 0).all()
    # Yellow is not among the colours.
    assert np.isfinite(light[0][:, 9:-6]).mean() > 0.9
    # The mean light by distance hardly depends on the size of a tile.
    zones = np.abs(light[0] - light[1])[:, :13]
    assert np.nanmedian(zones) < 0.1
    # Without red, nothing is compared with it.
    _, without = measure_fields(tmp_path, rows, segmentation, "without", ("green", "blue"))
    assert np.isnan(read_measures([without])[1]["measures"][:, -18:]).all(axis=0).sum() == 12


def test_measurements_that_change_need_another_edition(tmp_path):
    """A regression of the present edition takes cells that are measured like this."""
    from tile_fields import make_field, write_shard

    _, path = measure_fields(tmp_path, *write_shard(tmp_path, {"f": make_field(0)}), "of_f")
    _, found = read_measures([path])
    of_edition_2 = {
        "measures": [
            -0.33529,
            1.0887,
            2.1769,
            -0.54473,
            1.67,
            np.nan,
            0.48408,
            0.9767,
            -2.023,
            0.13161,
            0.94574,
            0.32871,
            np.nan,
        ],
        "outputs": [31.789, 34.274, 25.375, 85.062, 2.7559, 19.5, 29.031, 81.0, 28.312, 23.094, 80.75, 15.336, 21.359],
    }
    assert MEASURES_EDITION == 2
    for name, numbers in of_edition_2.items():
        first = found[name][0]
        some = [np.nanmean(first), np.nanstd(first), *first[:: len(first) // 10]]
        assert some == pytest.approx(numbers, rel=0.01, nan_ok=True)


def test_the_frozen_network_is_the_same_with_every_keras():
    import keras

    from hpaloc.baselines.measures import frozen_network

    tiles = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    keras.utils.set_random_seed(1)
    first = frozen_network(("red", "green", "blue"), 64)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(frozen_network(("red", "green", "blue"), 64)(tiles), first(tiles))
    kernels = [weights for weights in first.weights if len(weights.shape) > 1]
    # The first of NumPy's legacy normal numbers, for 7 x 7 px of three colours.
    assert np.ravel(kernels[0])[0] == pytest.approx(1.764052 * np.sqrt(2 / 147), rel=1e-5)
