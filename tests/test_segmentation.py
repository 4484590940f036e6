"""The embedded segmentation and the backend `masks`, on simulated and on real fields."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from hpaloc import rle
from hpaloc.segmentation import segment_field
from hpaloc.segmentation.ready_made import Given, read_given
from hpaloc.simulate import simulate_field

SETTINGS = {"backend": "watershed", "scale": 0.25}
REAL = (Path(__file__).parents[1] / "../shared/data").resolve()
FIELDS = sorted(path.name.removesuffix("_cellmask.png") for path in REAL.glob("hpa-2021/masks/*_cellmask.png"))


def agreement(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """F1 at IoU 0.6, and the mean IoU of the cells matched there."""
    n = int(found.max()) + 1
    shared = np.bincount((truth.astype(np.int64) * n + found).ravel(), minlength=(int(truth.max()) + 1) * n)
    shared = shared.reshape(-1, n)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    iou = (shared / np.maximum(union, 1))[1:, 1:]
    hit = iou >= 0.6
    return 2 * hit.sum() / (truth.max() + found.max()), float(iou[hit].mean())


def check_ids(nuclei: np.ndarray, cells: np.ndarray) -> None:
    np.testing.assert_array_equal(np.unique(cells[cells > 0]), np.arange(1, cells.max() + 1))
    np.testing.assert_array_equal(nuclei[nuclei > 0], cells[nuclei > 0])


@pytest.fixture(scope="module")
def field():
    return simulate_field("segmentation", (0,), 4, shape=(512, 640))


@pytest.fixture(scope="module")
def found(field):
    return segment_field(field.images, 0.16, SETTINGS)


def test_simulated_fields_are_found():
    scores = []
    for seed, labels in enumerate([(0,), (9,), (13,), (16,)]):
        field = simulate_field(f"s{seed}", labels, seed)
        nuclei, cells = segment_field(field.images, 0.16, SETTINGS)
        check_ids(nuclei, cells)
        scores.append(agreement(field.cells, cells)[0])
    assert np.mean(scores) >= 0.95


@pytest.mark.parametrize("name", FIELDS)
def test_real_fields_are_found(name):
    images = {c: cv2.imread(str(REAL / f"hpa-2021/images/{name}_{c}.png"), -1) for c in ("red", "yellow", "blue")}
    truth = cv2.imread(str(REAL / f"hpa-2021/masks/{name}_cellmask.png"), -1)
    nuclei, cells = segment_field(images, 0.08, SETTINGS)
    check_ids(nuclei, cells)
    f1, mean_iou = agreement(truth, cells)
    assert f1 >= 0.95
    assert mean_iou >= 0.85


@pytest.mark.skipif(not FIELDS, reason="../shared/data is not there")
def test_single_real_cells_are_found_one_a_slot():
    occupied = one = 0
    for blue in sorted(REAL.glob("hpa-cells-5/images/*_blue.jpg"))[::6]:
        images = {c: cv2.imread(str(blue).replace("_blue", f"_{c}"), -1) for c in ("red", "yellow", "blue")}
        _, cells = segment_field(images, 0.08, SETTINGS)
        area = np.bincount(cells.ravel())
        for y in range(0, 1536, 512):
            for x in range(0, 1536, 512):
                slot = np.s_[y : y + 512, x : x + 512]
                if images["blue"][slot].max() > 40:
                    occupied += 1
                    # A cell is in the slot that holds most of it: cut cells reach a pixel into the next.
                    inside = np.bincount(cells[slot].ravel(), minlength=area.size)
                    one += np.count_nonzero(2 * inside[1:] > area[1:]) == 1
    assert occupied > 40
    assert one >= 0.97 * occupied


def test_ids_shapes_and_types(field, found):
    nuclei, cells = found
    assert cells.shape == nuclei.shape == (512, 640)
    assert cells.dtype == nuclei.dtype == np.uint16
    check_ids(nuclei, cells)
    for cell in range(1, cells.max() + 1):
        parts, _ = cv2.connectedComponents((cells == cell).astype(np.uint8))
        assert parts == 2
        assert (nuclei == cell).any()


def test_depth_and_brightness_of_the_images_do_not_matter(field, found):
    for change in (
        lambda x: x.astype(np.uint16) * 257,
        lambda x: (x // 4).astype(np.uint8),
        lambda x: x + np.uint16(900),
    ):
        images = {colour: change(image) for colour, image in field.images.items()}
        _, cells = segment_field(images, 0.16, SETTINGS)
        assert agreement(found[1], cells)[0] > 0.95


def test_sizes_are_in_micrometres(field, found):
    double = {
        c: cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR) for c, image in field.images.items()
    }
    _, cells = segment_field(double, 0.08, SETTINGS)
    assert cells.shape == (1024, 1280)
    f1, mean_iou = agreement(found[1], cells[::2, ::2])
    assert f1 > 0.95
    assert mean_iou > 0.9


def test_a_turned_field_gives_the_turned_cells(field, found):
    turned = {colour: np.ascontiguousarray(np.rot90(image)) for colour, image in field.images.items()}
    _, cells = segment_field(turned, 0.16, SETTINGS)
    f1, mean_iou = agreement(found[1], np.rot90(cells, -1))
    assert f1 > 0.95
    assert mean_iou > 0.95


@pytest.mark.parametrize("kind", ["black", "noise", "white", "16-bit noise", "one pixel"])
def test_a_field_without_cells_has_none(kind):
    rng = np.random.default_rng(0)
    shape = (1, 1) if kind == "one pixel" else (300, 420)
    image = {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": rng.poisson(4, shape).astype(np.uint8),
        "16-bit noise": rng.normal(800, 30, shape).astype(np.uint16),
        "one pixel": np.ones(shape, np.uint8),
    }[kind]
    nuclei, cells = segment_field(dict.fromkeys(("red", "yellow", "blue"), image), 0.08, SETTINGS)
    assert nuclei.max() == cells.max() == 0
    assert cells.shape == shape


def test_a_missing_cytoplasm_channel_is_borne(field, found):
    dark = dict(field.images, yellow=np.zeros_like(field.images["yellow"]))
    assert agreement(found[1], segment_field(dark, 0.16, SETTINGS)[1])[0] > 0.9


def test_a_mitotic_plate_is_a_nucleus():
    blue = np.zeros((400, 400), np.float32)
    cv2.ellipse(blue, (100, 200), (60, 45), 0, 0, 360, 90, -1)
    cv2.ellipse(blue, (300, 200), (55, 10), 30, 0, 360, 200, -1)
    body = np.zeros_like(blue)
    for x in (100, 300):
        cv2.circle(body, (x, 200), 90, 80, -1)
    images = {"blue": blue, "red": body, "yellow": body}
    images = {c: cv2.GaussianBlur(image, (0, 0), 3).astype(np.uint8) for c, image in images.items()}
    nuclei, cells = segment_field(images, 0.08, SETTINGS)
    assert cells.max() == 2
    assert nuclei[200, 300] > 0


def test_gaps_between_cells_stay_background():
    blue, body = np.zeros((500, 500), np.uint8), np.zeros((500, 500), np.uint8)
    for y in (125, 375):
        for x in (125, 375):
            cv2.circle(blue, (x, y), 50, 120, -1)
            cv2.circle(body, (x, y), 120, 90, -1)
    _, cells = segment_field({"red": body, "yellow": body, "blue": blue}, 0.08, SETTINGS)
    assert cells.max() == 4
    assert cells[250, 250] == 0


def test_settings_and_images_are_checked(field):
    images = field.images
    with pytest.raises(ValueError, match="unknown backend 'cellpose'"):
        segment_field(images, 0.16, {"backend": "cellpose"})
    with pytest.raises(ValueError, match=r"segmentation\.scale"):
        segment_field(images, 0.16, {"scale": 0})
    with pytest.raises(ValueError, match="missing: yellow"):
        segment_field({c: images[c] for c in ("red", "blue")}, 0.16, SETTINGS)
    with pytest.raises(ValueError, match="one shape"):
        segment_field(dict(images, red=images["red"][:9]), 0.16, SETTINGS)
    with pytest.raises(ValueError, match="pixel_size"):
        segment_field(images, 0.0, SETTINGS)


def test_given_masks_are_taken_over(field):
    shifted = field.cells.astype(np.uint32) * 7
    nuclei, cells = segment_field(
        images=field.images, pixel_size=0.16, settings={"backend": "masks"}, given=Given(shifted)
    )
    np.testing.assert_array_equal(cells, field.cells)
    check_ids(nuclei, cells)
    # The missing nuclei are found in the blue channel.
    assert len(np.unique(nuclei)) - 1 >= 0.8 * cells.max()
    given = Given(field.cells, field.nuclei)
    nuclei, cells = segment_field(field.images, 0.16, {"backend": "masks"}, given=given)
    np.testing.assert_array_equal(nuclei, field.nuclei)
    with pytest.raises(ValueError, match="cell mask is"):
        segment_field(field.images, 0.16, {"backend": "masks"}, given=Given(field.cells[1:]))
    with pytest.raises(ValueError, match="needs the masks"):
        segment_field(field.images, 0.16, {"backend": "masks"})


def test_masks_come_from_images_or_tables(field, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), field.cells)
    height, width = field.cells.shape
    tables = {"cells.csv": (height, width, rle.encode_labels(field.cells))}
    for path in (str(tmp_path / "a.png"), "cells.csv"):
        np.testing.assert_array_equal(read_given("a", path, None, tables).cells, field.cells)
    with pytest.raises(ValueError, match=r"other\.csv: the table has no row of field a"):
        read_given("a", "other.csv", None, tables)
