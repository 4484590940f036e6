"""Hot pixels, debris and mosaics: what detectors, slides and stitchers do to images."""

import cv2
import numpy as np
import pytest
from segmented_fields import twelve_bit_field

from hpaloc.classes import COLOURS
from hpaloc.images import find_odd_colours
from hpaloc.measuring import measure_field
from hpaloc.pixels import detector
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.nuclei import above_background, subtract_leak
from hpaloc.segmentation.ready_made import Given
from hpaloc.segmentation.settings import SegmentationSettings

PIXEL_SIZE = 0.16
WATERSHED = SegmentationSettings("watershed")


@pytest.fixture(scope="module")
def field():
    return twelve_bit_field()


@pytest.fixture
def images(field):
    return {colour: image.copy() for colour, image in field.images.items()}


def kept(before, after, where=True):
    """Return the least share of a cell that is a cell again, of the cells that lie ``where``."""
    inside = [before == cell for cell in range(1, int(before.max()) + 1)]
    return min(float((after > 0)[own].mean()) for own in inside if np.all(own <= where))


def test_debris_in_blue_hides_no_nucleus(field, images):
    images["blue"] //= 10
    before = segment_field(images, PIXEL_SIZE, WATERSHED)[1]
    y, x = np.argwhere(cv2.erode((before == 0).astype(np.uint8), np.ones((51, 51))) > 0)[0]
    for level in (2000, 4095):
        images["blue"] = cv2.circle(images["blue"], (int(x), int(y)), 25, level, -1)
        after = segment_field(images, PIXEL_SIZE, WATERSHED)[1]
        assert before.max() > 5
        assert kept(before, after) > 0.9
        assert after[y, x] == 0


@pytest.mark.parametrize("shares", [{"red": 0.05}, {"red": 0.5}, {"yellow": 0.15}, {"red": 0.15, "yellow": 0.15}])
def test_a_stain_that_leaks_into_blue_makes_no_nuclei(images, shares):
    before = segment_field(images, PIXEL_SIZE, WATERSHED)[1]
    leaked = sum(share * images[colour] for colour, share in shares.items())
    after = segment_field({**images, "blue": (images["blue"] + leaked).astype(np.uint16)}, PIXEL_SIZE, WATERSHED)[1]
    assert after.max() == before.max() > 5
    assert kept(before, after) > 0.9


@pytest.mark.parametrize("share", [0.4, 1.0, 3.0])
def test_a_stain_into_which_blue_leaks_hides_no_nucleus(images, share):
    before = segment_field(images, PIXEL_SIZE, WATERSHED)[0]
    images["yellow"] = (0.1 * images["yellow"] + share * images["blue"]).astype(np.uint16)
    after = segment_field(images, PIXEL_SIZE, WATERSHED)[0]
    assert after.max() == before.max() > 5
    assert kept(before, after) > 0.9


def disc_in_both(red, blue):
    """Debris that is bright in red and blue."""
    return [cv2.circle(image.copy(), (400, 400), 25, 4 * float(image.max()), -1) for image in (red, blue)]


@pytest.mark.parametrize(
    "change",
    [
        lambda red, blue: (red, blue),
        lambda red, blue: (0.05 * red, blue),
        lambda red, blue: (np.full_like(red, 7), blue),
        disc_in_both,
        # A marker of some nuclei.
        lambda red, blue: (np.where(np.arange(red.shape[1]) < 300, blue, 0.1 * red), blue),
    ],
)
def test_where_no_stain_leaks_blue_stays_as_it_is(images, change):
    red, blue = (above_background(image.astype(np.float32), 0.16) for image in change(images["red"], images["blue"]))
    assert subtract_leak(blue, [red]) is blue


@pytest.mark.parametrize("level", [0, 65535])
@pytest.mark.parametrize("margin", [((200, 200), (150, 150)), ((0, 0), (0, 300)), ((0, 300), (0, 300))])
def test_a_field_in_a_mosaic_has_the_cells_that_it_has_alone(images, margin, level):
    mosaic = {colour: np.pad(image, margin, constant_values=level) for colour, image in images.items()}
    found = segment_field(mosaic, PIXEL_SIZE, WATERSHED)
    alone = segment_field(images, PIXEL_SIZE, WATERSHED)
    for labels, expected in zip(found, alone, strict=True):
        assert expected.max() > 5
        np.testing.assert_array_equal(labels, np.pad(expected, margin))
    empty = detector.find_empty(mosaic)
    _, rows = measure_field("f", mosaic, found[1], found[0], PIXEL_SIZE, empty=empty)
    _, expected = measure_field("f", images, alone[1], alone[0], PIXEL_SIZE)
    assert any(row["border"] for row in rows)
    # At the seam there is no membrane, as there is none at the edge of a field.
    for name, within in (("border", 0), ("green_ring_mean", 5e-3), ("green_peak", 0.05), ("focus", 0.1)):
        np.testing.assert_allclose([row[name] for row in rows], [row[name] for row in expected], rtol=within)


def test_a_cell_near_the_seam_of_a_mosaic_is_not_cut(images):
    cells = np.zeros(images["green"].shape, np.uint16)
    cells[100:200, 100:200], cells[100:200, 300:400] = 1, 2
    nuclei = np.where(np.pad(np.ones((20, 20), bool), ((140, 608), (140, 608))), cells, 0)
    images = {colour: image + np.uint16(500) for colour, image in images.items()}
    for colour in images:
        # Next to the second cell, and 2 px from the first.
        images[colour][:, 400:], images[colour][:98] = 0, 0
    empty = detector.find_empty(images)
    _, (first, second) = measure_field("f", images, cells, nuclei, PIXEL_SIZE, empty=empty)
    assert (first["border"], second["border"]) == (False, True)


@pytest.mark.parametrize("offset", [0, 32768])
@pytest.mark.parametrize("level", [0, 65535])
def test_a_rim_blurred_with_a_bright_level_is_no_cell(images, level, offset):
    images = {colour: image + np.uint16(offset) for colour, image in images.items()}
    margin, seam = 200, np.s_[200:-200, 200:-200]
    mosaic = {}
    for colour, image in images.items():
        padded = np.pad(image, margin, constant_values=level)
        blurred = cv2.GaussianBlur(padded, (3, 3), 0)
        # Beyond the seam, the stitcher's own level.
        mosaic[colour] = np.where(np.pad(np.ones(image.shape, bool), margin), blurred, level).astype(np.uint16)
    alone = segment_field(images, PIXEL_SIZE, WATERSHED)[1]
    found = segment_field(mosaic, PIXEL_SIZE, WATERSHED)[1]
    assert kept(alone, found[seam]) > 0.85
    assert abs(int(found.max()) - int(alone.max())) <= 1


@pytest.mark.parametrize("offset", [0, 100, 1000])
def test_a_mosaic_is_segmented_where_it_has_data(field, images, offset):
    whole = {colour: image + np.uint16(offset) for colour, image in images.items()}
    before = segment_field(whole, PIXEL_SIZE, WATERSHED)[1]
    empty = np.zeros(field.cells.shape, bool)
    empty[:200], empty[:, 600:] = True, True
    for level in (0, 65535):
        part = {colour: np.where(empty, level, image).astype(np.uint16) for colour, image in whole.items()}
        nuclei, after = segment_field(part, PIXEL_SIZE, WATERSHED)
        assert np.array_equal(np.unique(nuclei), np.unique(after))
        # A cell at the seam lacks a part of itself.
        inside = cv2.erode((~empty).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=20) > 0
        assert kept(before, after, inside) > 0.9
        assert not after[empty].any()
        assert np.array_equal(np.unique(after), np.arange(after.max() + 1))


def test_a_region_without_data_is_one_level_in_every_colour_and_ends_at_once(field, images):
    images = {colour: image + np.uint16(500) for colour, image in images.items()}
    empty = np.zeros(field.cells.shape, bool)
    empty[:200], empty[:, 600:] = True, True
    mosaic = {colour: np.where(empty, 0, image).astype(np.uint16) for colour, image in images.items()}
    # The rim belongs to it.
    np.testing.assert_array_equal(detector.find_empty(mosaic), cv2.dilate(empty.astype(np.uint8), np.ones((7, 7))) > 0)
    # Neither a dark background nor gaps between cut-out cells are regions without data.
    dark = {colour: np.where(images[colour] < 540, 0, images[colour]) for colour in COLOURS}
    assert detector.find_empty(dark) is None
    cut = {colour: np.where(field.cells > 0, images[colour], 0) for colour in COLOURS}
    assert detector.find_empty(cut) is None


def test_one_cell_on_black_is_not_a_region_with_data_in_a_mosaic(field, images):
    number = int(np.argmax(np.bincount(field.cells.ravel())[1:])) + 1
    alone = {colour: np.where(field.cells == number, image + np.uint16(100), 0) for colour, image in images.items()}
    assert detector.find_empty(alone) is None


@pytest.mark.parametrize("level", [0, 255, 4095, 65535])
def test_a_blurred_edge_of_a_mosaic_takes_no_cell(field, images, level):
    empty = np.zeros(field.cells.shape, bool)
    empty[:200], empty[:, 600:] = True, True
    before = segment_field(images, PIXEL_SIZE, WATERSHED)[1]
    part = {colour: np.where(empty, level, image).astype(np.uint16) for colour, image in images.items()}
    rim = cv2.dilate(empty.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    soft = {c: np.where(rim & ~empty, cv2.GaussianBlur(image, (0, 0), 0.8), image) for c, image in part.items()}
    after = segment_field(soft, PIXEL_SIZE, WATERSHED)[1]
    inside = cv2.erode((~empty).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=20) > 0
    assert kept(before, after, inside) > 0.9


def test_given_cells_are_kept_whole_whatever_is_around_them(field, images):
    part = {colour: image.copy() for colour, image in images.items()}
    for image in part.values():
        image[:200] = 0
    found = segment_field(part, PIXEL_SIZE, SegmentationSettings("masks"), given=Given(field.cells))[1]
    assert np.array_equal(found > 0, field.cells > 0)


def test_a_colour_that_nearly_repeats_another_is_a_warning(images):
    assert find_odd_colours(images, None) == []
    noise = np.random.default_rng(0).integers(0, 5, images["red"].shape, dtype=np.uint16)
    (warning,) = find_odd_colours({**images, "yellow": images["red"] // 2 + noise}, None)
    assert warning.startswith("yellow repeats red: their correlation is ")


def test_a_region_without_data_makes_no_colours_alike(images):
    empty = np.zeros(images["red"].shape, bool)
    empty[:600] = True
    mosaic = {colour: np.where(empty, 65535, image).astype(np.uint16) for colour, image in images.items()}
    assert len(find_odd_colours(mosaic, None)) == 6
    assert find_odd_colours(mosaic, empty) == []


@pytest.mark.parametrize("axis", [0, 1])
def test_a_hot_line_of_the_detector_is_repaired(images, axis):
    green = images["green"]
    for level in (0, 4095):
        broken = green.copy()
        np.moveaxis(broken, axis, 0)[300] = level
        repaired = detector.repair_lines(broken if level else broken + np.uint16(20)) - np.uint16(0 if level else 20)
        left = np.abs(repaired.astype(int) - green)
        # What remains is the noise of three pixels.
        assert np.moveaxis(left, axis, 0)[300].mean() < 0.25 * green.mean()
        assert not np.delete(np.moveaxis(left, axis, 0), 300, axis=0).any()
    assert detector.repair_lines(green) is green


def test_what_is_saturated_more_widely_than_a_microscope_shows_is_debris():
    image = np.zeros((200, 200), np.uint16)
    image[50:53, 20:180] = 4095
    assert detector.find_plateaus(image, 4095, 0.16) is None
    image = cv2.circle(image, (120, 120), 20, 4095, -1)
    found = detector.find_plateaus(image, 4095, 0.16)
    assert np.array_equal(found[70:], image[70:] == 4095)
    assert not found[:60].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hot_pixels_are_repaired_and_points_of_light_are_not(dtype):
    rng = np.random.default_rng(0)
    sharp = np.zeros((256, 256), np.float32)
    points = rng.integers(5, 251, (40, 2))
    sharp[points[:, 0], points[:, 1]] = 2000.0
    # A point that optics of 0.25 µm FWHM show on pixels of 0.2 µm.
    scene = np.clip(cv2.GaussianBlur(sharp, (0, 0), 0.55) + rng.normal(5, 1, sharp.shape), 0, 255).astype(dtype)
    assert detector.repair_hot_pixels(scene) is scene
    hot = scene.copy()
    hot[::32, 3::32] = np.iinfo(dtype).max
    repaired = detector.repair_hot_pixels(hot)
    left = np.count_nonzero(repaired != scene) - np.count_nonzero(repaired[::32, 3::32] != scene[::32, 3::32])
    assert left == 0
    assert (repaired[::32, 3::32] < 250).mean() > 0.9
