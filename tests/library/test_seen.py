"""What training has seen of a collection: each way to recognise a field or a cell, the file, and the scores without."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hpaloc.evaluation.left_out import SeenError, check_unseen, count_left_out, without_cells, without_fields
from hpaloc.files import write_json
from hpaloc.joining import annotate
from hpaloc.matching import Matches
from hpaloc.measuring import measure_field
from hpaloc.network.folder import write_checksums
from hpaloc.network.options import ModelError
from hpaloc.seen.finding import LEFT_OUT, describe_cells, find_seen, note_seen
from hpaloc.seen.folds import find_seen_by_folds
from hpaloc.seen.record import add_seen, load_seen, unite_seen, write_seen
from hpaloc.simulate.field import simulate_field
from hpaloc.tables import CELLS, FIELDS, to_table

GROUP_BY = ("antibody", "duplicates", "patient")


def simulated(seed):
    """Return the images, cell mask and nucleus mask of a simulated field."""
    field = simulate_field("f", (0,), seed, (512, 512), pixel_size=0.16)
    return field.images, field.cells, field.nuclei


def collection(fields, lacking=(), **columns):
    """Return the tables of cells and fields of {name: images, cells, nuclei}, and the columns of their sheet.

    columns: antibody, and others, each a value for every field
    """
    said = {name: {"labels": "0", "antibody": "", "cell_line": "", "split": ""} for name in fields}
    for name, antibody in zip(fields, columns.pop("antibody", ()), strict=False):
        said[name] = said[name] | {"antibody": antibody}
    rows, cells = [], []
    for name, (images, mask, nuclei) in fields.items():
        images = {colour: image for colour, image in images.items() if colour not in lacking}
        row, of_field = measure_field(name, images, mask, nuclei, 0.16)
        rows.append({"field": name, "status": "ok", **row})
        cells += of_field
    table = annotate(to_table(rows, FIELDS), said)
    fields = table.to_pandas(types_mapper={pa.uint64(): pd.UInt64Dtype()}.get)
    return to_table(cells, CELLS).to_pandas(), fields, pd.DataFrame(columns, index=range(len(fields)), dtype=object)


@pytest.fixture(scope="module")
def pictures():
    return [simulated(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def seen(pictures):
    """What a training has seen that used the first two of three fields."""
    tables = collection(
        dict(zip(("a", "b", "unused"), pictures, strict=False)),
        antibody=["HPA1", "HPA2", "HPA3"],
        patient=["p1", "NA", "p3"],
        **{"Gene name": ["RAB8A", "unknown", "TP53"], "plate": ["1", "2", "3"]},
    )
    return note_seen(*tables, pd.DataFrame({"field": ["a", "a", "b"]}), GROUP_BY)


def found(seen, tables, group_by=GROUP_BY):
    table = to_table(find_seen(*tables, seen, group_by), LEFT_OUT)
    return [(row["field"], row["cell"], row["kind"]) for row in table.to_pylist()]


def degraded(images):
    """Return images a bit darker, noisy and shifted, as another export of the same recording may be."""
    noise = np.random.default_rng(0)
    return {
        colour: np.roll((0.8 * image + noise.normal(2, 1, image.shape)).clip(0, 255).astype(np.uint8), 3, axis=1)
        for colour, image in images.items()
    }


def test_a_new_field_is_left_in_the_scores(seen, pictures):
    tables = collection({"new": pictures[3]}, antibody=["HPA9"], patient=["NA"], gene=["unknown"], plate=["1"])
    assert found(seen, tables) == []
    # A field that the training did not use was not seen.
    assert found(seen, collection({"unused": pictures[2]}, antibody=["HPA3"], patient=["p3"])) == []


@pytest.mark.parametrize(
    ("kind", "name", "picture", "columns"),
    [
        ("id", "A ", 3, {}),
        ("same images", "new", 0, {}),
        ("antibody", "new", 3, {"antibody": ["hpa1"]}),
        ("gene", "new", 3, {"gene": ["RAB8A"]}),
        ("Patient", "new", 3, {"Patient": ["p1"]}),
    ],
)
def test_a_field_is_recognised(seen, pictures, kind, name, picture, columns):
    assert found(seen, collection({name: pictures[picture]}, **columns)) == [(name, 0, kind)]


def test_a_near_duplicate_is_recognised(seen, pictures):
    images, cells, nuclei = pictures[0]
    moved = (degraded(images), np.roll(cells, 3, axis=1), np.roll(nuclei, 3, axis=1))
    assert found(seen, collection({"new": moved})) == [("new", 0, "near-duplicate")]


def test_one_shared_colour_is_enough(seen, pictures):
    (images, cells, nuclei), (others, *_) = pictures[3], pictures[0]
    assert found(seen, collection({"new": ({**images, "green": others["green"]}, cells, nuclei)})) == [
        ("new", 0, "same images")
    ]


@pytest.mark.parametrize("lacking", [(), ("yellow",)])
def test_a_turned_field_is_recognised_by_its_cells(seen, pictures, lacking):
    images, cells, nuclei = pictures[0]
    turned = ({colour: image[::-1].T.copy() for colour, image in images.items()}, cells[::-1].T, nuclei[::-1].T)
    tables = collection({"new": turned}, lacking)
    assert found(seen, tables) == [("new", 0, "same cells")]


def test_a_cell_in_another_field_is_recognised_turned_and_mirrored(seen, pictures):
    (source, labels, nuclei), (images, cells, others) = pictures[0], pictures[3]
    cells_of_a, _, _ = collection({"a": pictures[0]})
    inside = cells_of_a[~cells_of_a["border"] & (cells_of_a["nucleus_area_px"] > 0)].iloc[0]
    box = np.s_[inside["y0"] : inside["y1"], inside["x0"] : inside["x1"]]
    mask = np.rot90(labels[box] == inside["cell"])[:, ::-1]
    place = np.s_[200 : 200 + mask.shape[0], 200 : 200 + mask.shape[1]]
    pasted = {colour: image.copy() for colour, image in images.items()}
    for colour, image in pasted.items():
        image[place][mask] = np.rot90(source[colour][box])[:, ::-1][mask]
    cells, others, new = cells.copy(), others.copy(), int(cells.max()) + 1
    cells[place][mask] = new
    others[place][mask] = np.where(np.rot90(nuclei[box] == inside["cell"])[:, ::-1][mask], new, 0)
    assert found(seen, collection({"new": (pasted, cells, others)})) == [("new", new, "same cell")]


def test_the_group_of_a_field_that_was_seen_is_left_out_with_it(seen, pictures):
    fields = {"copy": pictures[0], "other": pictures[3], "apart": pictures[2]}
    tables = collection(fields, antibody=["HPA8", "HPA8", "HPA9"])
    assert found(seen, tables) == [("copy", 0, "same images"), ("other", 0, "group")]


def test_in_a_cross_validation_a_field_is_compared_with_what_its_own_network_has_seen(seen, pictures):
    fields = {"x": pictures[2], "copy of x": pictures[2], "of a training before": pictures[0], "new": pictures[1]}
    tables = collection(fields, patient=["p7", "p7", "p8", "p9"])
    names = list(fields)
    examples = [pd.DataFrame({"field": own}) for own in (["copy of x", "new"], ["x", "of a training before"])]

    def found_by(folds, before=()):
        found = find_seen_by_folds(tables, pd.Series(folds, names), examples, before, ["patient"])
        return [(row["field"], row["cell"], row["kind"]) for row in to_table(found, LEFT_OUT).to_pylist()]

    apart = [1, 2, 1, 2]
    assert found_by(apart) == [("x", 0, "same images"), ("copy of x", 0, "same images")]
    # The networks of both folds have seen two fields of the first training.
    assert found_by(apart, [seen])[1] == ("of a training before", 0, "same images")
    assert ("new", 0, "same images") in found_by(apart, [seen])
    examples = [pd.DataFrame({"field": own}) for own in (["of a training before", "new"], ["x", "copy of x"])]
    assert found_by([1, 1, 2, 2]) == []


def test_a_collection_that_lacks_colours_is_compared_in_those_it_has(seen, pictures):
    images, cells, nuclei = pictures[0]
    degraded_field = (degraded(images), np.roll(cells, 3, axis=1), np.roll(nuclei, 3, axis=1))
    assert found(seen, collection({"new": degraded_field}, ("red", "yellow"))) == [("new", 0, "near-duplicate")]
    assert found(seen, collection({"new": pictures[3]}, ("red", "yellow"))) == []


def test_cells_without_nucleus_and_fields_without_cells_are_described(pictures):
    images, cells, nuclei = pictures[0]
    described = describe_cells(*collection({"a": (images, cells, np.zeros_like(nuclei))})[:2])
    assert described.shape[1] == 14
    empty = collection({"a": (images, np.zeros_like(cells), np.zeros_like(nuclei))})
    assert describe_cells(*empty[:2]).shape == (0, 14)


@pytest.fixture
def folder(tmp_path, seen):
    write_json(tmp_path / "config.json", {})
    write_checksums(tmp_path, ("config.json",))
    write_seen(tmp_path / "noted.npz", seen)
    add_seen(tmp_path, tmp_path / "noted.npz")
    return tmp_path


def test_crops_of_unknown_outline_are_not_taken_for_one_cell(pictures):
    crops = {}
    for number, (images, mask, nuclei) in enumerate(pictures):
        for place in range(16):
            box = np.s_[place // 4 * 128 :, place % 4 * 128 :]
            images_of_crop = {colour: np.ascontiguousarray(image[box][:128, :128]) for colour, image in images.items()}
            whole, none = np.ones((128, 128), mask.dtype), np.zeros((128, 128), nuclei.dtype)
            crops[f"{number}-{place}"] = images_of_crop, whole, none
    names = list(crops)
    half = {name: crops[name] for name in names[::2]}, {name: crops[name] for name in names[1::2]}
    known = note_seen(*collection(half[0]), pd.DataFrame({"field": list(half[0])}), GROUP_BY)
    assert found(known, collection(half[1])) == []
    assert len(found(known, collection(half[0]))) == len(half[0])


def test_what_was_seen_is_kept_without_names(folder, seen, pictures):
    stored = load_seen(folder)
    for name, array in vars(seen).items():
        np.testing.assert_array_equal(getattr(stored, name), array)
    content = (folder / "seen.npz").read_bytes()
    assert b"HPA1" not in content
    assert b"RAB8A" not in content
    again = unite_seen([stored, seen])
    np.testing.assert_array_equal(again.cells, seen.cells)
    assert found(stored, collection({"new": pictures[1]})) == [("new", 0, "same images")]


def test_an_older_folder_does_not_say_what_it_has_seen(tmp_path):
    assert load_seen(tmp_path) is None


def test_a_changed_file_is_refused(folder, seen):
    path = folder / "seen.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"seen\.npz"):
        load_seen(folder)
    for arrays in ({"ids": seen.ids}, vars(seen) | {"cells": seen.cells[:, :3]}, vars(seen) | {"ids": np.array([{}])}):
        np.savez(path, **arrays)
        write_checksums(folder, ("checksums.json", "seen.npz"), to="seen.checksums.json")
        with pytest.raises(ModelError, match=r"seen\.npz"):
            load_seen(folder)
    add_seen(folder, folder / "noted.npz")
    # It is of one network.
    write_json(folder / "config.json", {"epochs": 2})
    write_checksums(folder, ("config.json",))
    with pytest.raises(ModelError, match=r"checksums\.json"):
        load_seen(folder)


LEFT = pd.DataFrame({"field": ["a", "b"], "cell": [0, 2], "kind": ["id", "same cell"]})
CELLS_OF = pd.DataFrame({"field": ["a", "a", "b", "b", "c"], "cell": [1, 2, 1, 2, 1]})


def test_what_was_seen_leaves_cells_true_cells_and_matches_alike():
    pairs = pd.DataFrame({"field": ["b", "b"], "cell": [1, 2], "truth_cell": [7, 8], "iou": [0.9, 0.8]})
    truth = pd.DataFrame({"field": ["b", "b", "c"], "cell": [7, 8, 9], "labels": ["0", "2", "2"]})
    cells = without_fields(CELLS_OF, LEFT)
    matches = Matches(pairs, cells, truth[["field", "cell"]])
    cells, truth, matches = without_cells(cells, truth, matches, LEFT)
    assert cells.to_numpy().tolist() == [["b", 1], ["c", 1]]
    assert truth["cell"].tolist() == [7, 9]
    assert matches.pairs["truth_cell"].tolist() == [7]
    assert matches.predicted.to_numpy().tolist() == [["b", 1], ["c", 1]]
    assert matches.truth["cell"].tolist() == [7, 9]


def test_what_is_left_out_is_counted_by_kind():
    counts = count_left_out(CELLS_OF, LEFT)
    assert counts.to_numpy().tolist() == [["id", 1, 2], ["same cell", 0, 1]]
    assert json.dumps(counts.to_dict("records"))


def test_a_collection_that_was_seen_as_a_whole_is_an_error():
    fields = pd.DataFrame({"field": ["a", "b", "c"], "sheet_labels": ["0", "0", ""]})
    check_unseen("test", fields, None, LEFT)
    whole = pd.DataFrame({"field": ["a", "b"], "cell": 0, "kind": ["id", "antibody"]})
    with pytest.raises(SeenError, match=r"test: .*all of its 2 .* \(1 by id, 1 by antibody\).*labels: false"):
        check_unseen("test", fields, None, whole)
    truth = pd.DataFrame({"field": ["c"]})
    check_unseen("test", fields, truth, whole)
    with pytest.raises(SeenError, match="all of its 1 labelled fields"):
        check_unseen("test", fields, truth, whole.assign(field=["a", "c"]))
    check_unseen("unlabelled", fields.assign(sheet_labels=""), None, whole)
