"""The embedded segmentation and the backend `masks`, on simulated and on real fields."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage
from segmented_fields import ious

from hpaloc import rle
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.grid import whole
from hpaloc.segmentation.ready_made import Given, read_given
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.simulate.field import simulate_field

SETTINGS = SegmentationSettings(backend="watershed", scale=0.25)
REAL = (Path(__file__).parents[2] / "../shared/data").resolve()
FIELDS = sorted(path.name.removesuffix("_cellmask.png") for path in REAL.glob("hpa-2021/masks/*_cellmask.png"))


def agreement(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """F1 at IoU 0.6, and the mean IoU of the cells matched there."""
    iou = ious(truth, found)
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


def test_a_dim_or_noisy_cytoplasm_channel_is_borne(field, found):
    dim = dict(field.images, red=(field.images["red"] * 0.1).astype(np.uint8))
    f1, mean_iou = agreement(found[1], segment_field(dim, 0.16, SETTINGS)[1])
    assert f1 > 0.95
    assert mean_iou > 0.95
    rng = np.random.default_rng(0)
    noise = dict(field.images, red=rng.poisson(8, field.cells.shape).astype(np.uint8))
    absent = dict(field.images, red=np.zeros_like(field.images["red"]))
    without = segment_field(absent, 0.16, SETTINGS)[1]
    np.testing.assert_array_equal(segment_field(noise, 0.16, SETTINGS)[1], without)


def test_sixteen_bits_and_an_offset_give_the_same_cells(field, found):
    images = {colour: image.astype(np.uint16) * 200 + 500 for colour, image in field.images.items()}
    f1, mean_iou = agreement(found[1], segment_field(images, 0.16, SETTINGS)[1])
    assert f1 == 1
    assert mean_iou > 0.99


def drawn(*nuclei: np.ndarray, cells: list[tuple[int, int, int]], shape=(400, 600)) -> dict[str, np.ndarray]:
    """A field of 0.08 µm: blue images of nuclei, added, and discs (x, y, radius) of cytoplasm, a little blurred."""
    body = np.zeros(shape, np.float32)
    for x, y, radius in cells:
        cv2.circle(body, (x, y), radius, 90, -1)
    images = {"red": body, "yellow": body, "blue": np.sum(nuclei, axis=0, dtype=np.float32)}
    return {c: np.clip(cv2.GaussianBlur(image, (0, 0), 3), 0, 255).astype(np.uint8) for c, image in images.items()}


def oval(x: int, y: int, a: int, b: int, level: float, shape=(400, 600)) -> np.ndarray:
    return cv2.ellipse(np.zeros(shape, np.float32), (x, y), (a, b), 0, 0, 360, level, -1)


def test_nuclei_that_touch_are_two_where_a_dark_line_parts_them():
    pair = np.maximum(oval(255, 200, 45, 60, 120), oval(345, 200, 45, 60, 120))
    cells = [(230, 200, 120), (370, 200, 120)]
    line = pair.copy()
    line[:, 295:305] = 0
    assert segment_field(drawn(line, cells=cells), 0.08, SETTINGS)[1].max() == 2
    # Bridged by a neck as bright as they are, they are the lobes of one nucleus.
    bridge = pair.copy()
    bridge[180:220, 270:330] = 120
    nuclei, cells = segment_field(drawn(bridge, cells=cells), 0.08, SETTINGS)
    assert cells.max() == 1
    assert nuclei[200, 255] == nuclei[200, 345] == 1


def test_a_vacuole_does_not_cut_a_nucleus():
    nucleus = oval(300, 200, 60, 60, 120)
    cv2.circle(nucleus, (285, 180), 28, 20, -1)
    cv2.line(nucleus, (285, 180), (285, 100), 20, 20)
    nuclei, cells = segment_field(drawn(nucleus, cells=[(300, 200, 130)]), 0.08, SETTINGS)
    assert cells.max() == 1
    assert nuclei[200, 250] == nuclei[200, 345] == 1


def test_nucleoli_are_no_holes_of_a_nucleus():
    nucleus = oval(300, 200, 70, 55, 120)
    for x in (270, 330):
        cv2.circle(nucleus, (x, 200), 14, 15, -1)
    nuclei, _ = segment_field(drawn(nucleus, cells=[(300, 200, 130)]), 0.08, SETTINGS)
    assert nuclei[200, 270] == nuclei[200, 330] == nuclei[200, 300] == 1


def test_a_dim_nucleus_beside_a_bright_one_is_found_and_a_haze_is_not():
    bright, dim = oval(150, 200, 50, 50, 220), oval(450, 200, 50, 50, 30)
    cells = [(150, 200, 120), (450, 200, 120)]
    nuclei, found = segment_field(drawn(bright, dim, cells=cells), 0.08, SETTINGS)
    assert found.max() == 2
    assert nuclei[200, 450] > 0
    haze = cv2.GaussianBlur(oval(450, 200, 90, 60, 45), (0, 0), 45)
    nuclei, found = segment_field(drawn(bright, haze, cells=cells), 0.08, SETTINGS)
    assert found.max() == 1
    assert nuclei[200, 450] == 0


def test_an_uneven_background_is_no_cell():
    cells = [(150, 200, 120), (450, 200, 120)]
    images = drawn(oval(150, 200, 50, 50, 100), oval(450, 200, 50, 50, 100), cells=cells)
    even = segment_field(images, 0.08, SETTINGS)[1]
    slope = np.linspace(0, 60, 600, dtype=np.float32)
    uneven = {colour: np.clip(image + slope, 0, 255).astype(np.uint8) for colour, image in images.items()}
    found = segment_field(uneven, 0.08, SETTINGS)[1]
    f1, mean_iou = agreement(even, found)
    assert f1 == 1
    assert mean_iou > 0.9


def test_debris_is_no_cell():
    nucleus = oval(150, 200, 50, 50, 100)
    for x, y, radius in ((400, 80, 4), (500, 300, 12), (330, 350, 8)):
        cv2.circle(nucleus, (x, y), radius, 200, -1)
    nuclei, cells = segment_field(drawn(nucleus, cells=[(150, 200, 120), (500, 300, 25)]), 0.08, SETTINGS)
    assert cells.max() == 1
    assert cells[300, 500] == nuclei[300, 500] == 0


@pytest.mark.parametrize("shape", [(20, 20), (20, 700), (3, 5), (301, 17)])
def test_fields_of_any_size_are_taken(shape):
    images = drawn(oval(300, 150, 50, 50, 120), cells=[(300, 150, 120)])
    images = {colour: np.resize(image[100:200, 250:350], shape) for colour, image in images.items()}
    nuclei, cells = segment_field(images, 0.08, SETTINGS)
    assert nuclei.shape == cells.shape == shape
    check_ids(nuclei, cells)


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


def test_images_are_checked(field):
    images = field.images
    with pytest.raises(ValueError, match="missing: blue"):
        segment_field({c: images[c] for c in ("red", "yellow")}, 0.16, SETTINGS)
    with pytest.raises(ValueError, match="one shape"):
        segment_field(dict(images, red=images["red"][:9]), 0.16, SETTINGS)
    with pytest.raises(ValueError, match="pixel_size"):
        segment_field(images, 0.0, SETTINGS)


def test_given_masks_are_taken_over(field):
    shifted = field.cells.astype(np.uint32) * 7
    nuclei, cells = segment_field(
        images=field.images, pixel_size=0.16, settings=SegmentationSettings("masks"), given=Given(shifted)
    )
    np.testing.assert_array_equal(cells, field.cells)
    check_ids(nuclei, cells)
    # The missing nuclei are found in the blue channel.
    assert len(np.unique(nuclei)) - 1 >= 0.8 * cells.max()
    given = Given(field.cells, field.nuclei)
    nuclei, cells = segment_field(field.images, 0.16, SegmentationSettings("masks"), given=given)
    np.testing.assert_array_equal(nuclei, field.nuclei)
    with pytest.raises(ValueError, match="cell mask is"):
        segment_field(field.images, 0.16, SegmentationSettings("masks"), given=Given(field.cells[1:]))
    with pytest.raises(ValueError, match="needs the masks"):
        segment_field(field.images, 0.16, SegmentationSettings("masks"))


def test_a_binary_mask_is_told_from_ids(field):
    def given(cells, nuclei=None):
        return segment_field(field.images, 0.16, SegmentationSettings("masks"), given=Given(cells, nuclei))

    with pytest.raises(ValueError, match=r"the cell mask is binary \(one id in"):
        given((field.nuclei > 0).astype(np.uint8))
    with pytest.raises(ValueError, match=r"the nucleus mask is binary \(one id in"):
        given(field.cells, (field.nuclei > 0).astype(np.uint8) * 255)
    # Three nuclei of one cell that share its id, and two cells without any background, are what they seem.
    alone = np.zeros_like(field.cells)
    alone[50:450, 50:600] = 1
    three = np.zeros_like(alone)
    three[100:150, 100:500:150] = 1
    np.testing.assert_array_equal(given(alone, three)[0], three)
    halves = np.ones_like(alone)
    halves[200:300] = 2
    halves[400:] = 2
    np.testing.assert_array_equal(given(halves, three)[1], halves)


def test_masks_come_from_images_or_tables(field, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), field.cells)
    height, width = field.cells.shape
    tables = {"cells.csv": (height, width, rle.encode_labels(field.cells))}
    for path in (str(tmp_path / "a.png"), "cells.csv"):
        np.testing.assert_array_equal(read_given("a", path, None, tables).cells, field.cells)
    with pytest.raises(ValueError, match=r"other\.csv: the table has no row for field a"):
        read_given("a", "other.csv", None, tables)


def test_a_label_keeps_its_largest_part_and_gets_its_holes():
    rng = np.random.default_rng(3)
    compared = 0
    for _ in range(300):
        labels = rng.choice(3, size=rng.integers(1, 9, 2), p=[0.3, 0.5, 0.2]).astype(np.uint16)
        parts = [ndimage.label(labels == label, np.ones((3, 3)))[0] for label in (1, 2)]
        areas = [np.bincount(of_label.ravel(), minlength=2)[1:] for of_label in parts]
        if any(np.count_nonzero(of_label == of_label.max()) > 1 for of_label in areas):
            # Which of two equally large parts is kept is not said.
            continue
        expected = labels.copy()
        for of_label, sizes in zip(parts, areas, strict=True):
            expected[(of_label > 0) & (of_label != 1 + sizes.argmax())] = 0
        for label in (1, 2):
            expected[ndimage.binary_fill_holes(expected == label) & (expected == 0)] = label
        compared += int((expected != labels).any())
        np.testing.assert_array_equal(whole(labels.copy()), expected)
    assert compared > 50
