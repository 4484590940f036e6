"""What cameras, stitchers and converters do to images, and the levels that must not follow it."""

import re

import cv2
import numpy as np
import pytest
from scipy import ndimage
from segmented_fields import twelve_bit_field

from hpaloc.classes import COLOURS
from hpaloc.levels import _percentiles
from hpaloc.measuring import find_implausible, measure_field
from hpaloc.network.options import LEVELS_EDITION
from hpaloc.pixels import detector
from hpaloc.tfrecord import TileRecord
from hpaloc.tiles import tile_field

PIXEL_SIZE = 0.16


@pytest.fixture(scope="module")
def field():
    return twelve_bit_field()


@pytest.fixture
def images(field):
    return {colour: image.copy() for colour, image in field.images.items()}


def shown(images, field):
    """Return each cell's tile of each colour as the network sees it, and the warnings."""
    tiled = tile_field("f", images, field.cells, field.nuclei, PIXEL_SIZE, size=64)
    tiles = {}
    for colour, records in tiled.records.items():
        for framed in records:
            record = TileRecord.decode(framed[12:-4])
            tiles[colour, record.cell] = np.clip(record.tile / record.white, 0, 1)
    return tiles, find_implausible(tiled.row, tiled.cells)


def change(images, field, but=()):
    """Return the largest mean change of a cell's tile in its own mean, of cells other than those in ``but``."""
    before, _ = shown(field.images, field)
    after, _ = shown(images, field)
    return max(
        float(np.abs(after[key] - tile).mean() / tile.mean()) for key, tile in before.items() if key[1] not in but
    )


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("level", [4095, 65535])
def test_a_speck_on_one_cell_changes_no_other(field, images, colour, level):
    y, x = (int(place.mean()) for place in np.nonzero(field.cells == 3))
    images[colour][y - 3 : y + 4, x - 3 : x + 4] = level
    boxes = ndimage.find_objects(field.cells)
    touched = {
        id
        for id, (rows, columns) in enumerate(boxes, 1)
        if y in range(rows.start - 3, rows.stop + 4) and x in range(columns.start - 3, columns.stop + 4)
    }
    assert len(touched) < len(boxes) / 2
    assert change(images, field, touched) < 0.03


@pytest.mark.parametrize("colour", COLOURS)
def test_a_hot_pixel_changes_nothing_in_any_colour(field, images, colour):
    images[colour][100, 100] = 65535
    images = {colour: detector.repair_hot_pixels(image) for colour, image in images.items()}
    assert change(images, field) < 0.001


def test_a_colour_of_more_bits_changes_no_other(field, images):
    images["red"] *= 16
    assert change(images, field) < 0.01


@pytest.mark.parametrize(
    ("offset", "word"), [(100, None), (400, "offset"), (2000, "offset"), (32768, "signed numbers")]
)
def test_an_offset_of_the_camera_changes_nothing_and_is_told(field, images, offset, word):
    images = {colour: image + np.uint16(offset) for colour, image in images.items()}
    assert change(images, field) < 0.01
    _, warnings = shown(images, field)
    told = [colour for colour in COLOURS if any(colour in line and (word or "") in line for line in warnings)]
    assert told == ([*COLOURS] if word else [])


def test_an_offset_that_differs_across_the_field_is_told(field, images):
    y, x = np.indices(field.cells.shape) / field.cells.shape[0]
    for offset in (200 * x, 100 * (x + y), 400 * np.hypot(y - 0.5, x - 0.5), np.where((x > 0.5) & (y > 0.5), 200, 0)):
        uneven = {colour: np.rint(image + offset).astype(np.uint16) for colour, image in images.items()}
        _, warnings = shown(uneven, field)
        told = [colour for colour in COLOURS if any(f"{colour} differs across the field" in line for line in warnings)]
        assert told == [*COLOURS]
        whole, _ = measure_field("f", uneven, field.cells, field.nuclei, PIXEL_SIZE)
        assert all(50 < whole[f"{colour}_unevenness"] < 210 for colour in COLOURS)


def test_light_that_leaks_from_cells_is_not_uneven_illumination(field, images):
    haze = cv2.GaussianBlur(np.where(np.arange(768) < 384, field.cells > 0, 0).astype(np.float32), (0, 0), 25)
    images["green"] = (images["green"] + 1000 * haze).astype(np.uint16)
    assert shown(images, field)[1] == []


def test_a_mosaic_has_the_levels_of_its_part_with_data(field, images):
    images = {colour: image + np.uint16(500) for colour, image in images.items()}
    empty = np.zeros(field.cells.shape, bool)
    empty[:200], empty[:, 600:] = True, True
    kept = {colour: np.where(empty, 0, image).astype(np.uint16) for colour, image in images.items()}
    cells, nuclei = (np.where(empty, 0, mask) for mask in (field.cells, field.nuclei))
    whole, part = (
        measure_field("f", own, cells, nuclei, PIXEL_SIZE, empty=detector.find_empty(own))[0] for own in (images, kept)
    )
    for colour in COLOURS:
        assert part[f"{colour}_background"] == pytest.approx(whole[f"{colour}_background"], abs=20)
        assert part[f"{colour}_white"] == pytest.approx(whole[f"{colour}_white"], rel=0.01)


def test_what_is_wrong_with_a_recording_is_named_by_its_cause(field, images):
    _, warnings = shown(images, field)
    assert warnings == []
    burnt = {**images, "green": np.minimum(images["green"].astype(int) * 8, 4095).astype(np.uint16)}
    assert any("green is overexposed" in line and "4095" in line for line in shown(burnt, field)[1])
    soft = {**images, "red": cv2.GaussianBlur(images["red"], (0, 0), 8)}
    assert any("red is out of focus" in line for line in shown(soft, field)[1])
    row, cells = measure_field("f", images, field.cells, field.nuclei, 0.02)
    assert any("µm across: is a pixel really 0.02 µm?" in line for line in find_implausible(row, cells))
    row, cells = measure_field("f", images, field.nuclei, field.nuclei, PIXEL_SIZE)
    assert any("no cytoplasm was found" in line for line in find_implausible(row, cells))
    inverted = {**images, "green": 4095 - images["green"]}
    assert any("darker in green" in line and "inverted" in line for line in shown(inverted, field)[1])


@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 5])
def test_a_colour_is_overexposed_if_its_white_is_cut_off(field, images, factor):
    def levels(green):
        row, cells = measure_field("f", {**images, "green": green.astype(np.uint16)}, field.cells, field.nuclei, 0.16)
        white = row["green_white"] - row["green_background"]
        return white, [line for line in find_implausible(row, cells) if "overexposed" in line]

    bright = images["green"].astype(int) * factor
    (true, _), (white, told) = levels(bright), levels(np.minimum(bright, 4095))
    assert bool(told) == (white < 0.97 * true)
    named = r"green is overexposed \(on average \d+ % of a cell's pixels are at its limit, 4095\): .*"
    assert all(re.fullmatch(named, line) for line in told)


def test_one_burnt_cell_is_no_overexposed_field(field, images):
    green = images["green"]
    green[field.cells == 3] = 4095
    assert not any("overexposed" in line for line in shown(images, field)[1])


def test_a_cell_without_light_hides_no_warning(field, images):
    soft = {**images, "red": cv2.GaussianBlur(images["red"], (0, 0), 8)}
    soft["red"][field.cells == 2] = 0
    assert any("red is out of focus" in line for line in shown(soft, field)[1])


def test_cells_without_nuclei_have_no_wrong_pixel_size(field, images):
    for nuclei in (np.zeros_like(field.nuclei), np.where(field.nuclei > 5, 0, field.nuclei)):
        row, cells = measure_field("f", images, field.cells, nuclei, PIXEL_SIZE)
        assert find_implausible(row, cells) == []


def test_a_list_of_warnings_can_be_told_apart(field, images):
    odd = {
        colour: np.minimum(image.astype(int) * 10 + 3000, 65535).astype(np.uint16) for colour, image in images.items()
    }
    odd["green"] = images["green"] + np.uint16(32768)
    _, warnings = shown(odd, field)
    assert len(warnings) >= 4
    assert not [line for line in warnings if "; " in line]


@pytest.mark.parametrize(
    ("image", "bits", "expected"),
    [
        (np.arange(400000).reshape(400, 1000) % 1021, None, 4095),
        (np.minimum(np.arange(400000).reshape(400, 1000) % 1200, 1000), None, 1000),
        (np.arange(400000).reshape(400, 1000) % 300, 12, 4095),
    ],
)
def test_the_level_of_saturation_is_that_of_the_file_or_of_the_pixels(image, bits, expected):
    assert detector.find_full_scale(image.astype(np.uint16), bits) == expected
    hot = image.astype(np.uint16)
    hot[0, 0] = 65535
    assert detector.find_full_scale(hot, bits) == expected


def test_levels_that_change_need_another_edition():
    """A model of the present edition reads tiles that are scaled like this."""
    rng = np.random.default_rng(0)
    yy, xx = np.indices((240, 240))
    cells = np.zeros((240, 240), np.uint8)
    for number, (y, x) in enumerate(((60, 60), (60, 170), (170, 60), (170, 170)), 1):
        cells[np.hypot(yy - y, xx - x) < 40] = number
    light = np.where(cells > 0, rng.gamma(2.0, 300.0, cells.shape), 0) + rng.normal(150, 6, cells.shape)
    gains = dict(zip(COLOURS, (1, 2, 4, 0.1), strict=True))
    images = {colour: np.clip(light * gain, 0, 4095).astype(np.uint16) for colour, gain in gains.items()}
    row, _ = measure_field("f", images, cells, cells, PIXEL_SIZE)
    found = {colour: [row[f"{colour}_{what}"] for what in ("background", "white")] for colour in COLOURS}
    of_edition_2 = {"red": [149, 3220.1], "green": [299, 5991.9], "blue": [599, 5842.6], "yellow": [14, 322.2]}
    assert LEVELS_EDITION == 2
    for colour, levels in of_edition_2.items():
        assert found[colour] == pytest.approx(levels, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("number", [1, 2, 3, 10, 997])
def test_percentiles_of_grey_levels_are_those_of_numpy_to_the_last_bit(dtype, number):
    rng = np.random.default_rng(number)
    percent = [0, 2, 5, 50, 97.7, 100, *rng.uniform(0, 100, 20)]
    for highest in (1, 5, np.iinfo(dtype).max):
        levels = rng.integers(0, highest, number, endpoint=True, dtype=dtype)
        assert np.array_equal(_percentiles(levels, percent), np.percentile(levels, percent))
