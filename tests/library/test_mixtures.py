"""Blends of cells, the light of a cell, and fractions of mixtures read from both."""

import json

import numpy as np
import pytest

from hpaloc.classes import N_CLASSES, NAMES, NEGATIVE, class_prototypes
from hpaloc.mixtures import blends as blending
from hpaloc.mixtures.blends import blendable_shape, blended, draw_blends
from hpaloc.mixtures.fractions import mixture_fractions, reading_fractions
from hpaloc.mixtures.learning import learn_reading
from hpaloc.mixtures.light import light_features, measure_light
from hpaloc.mixtures.reading import check_reading, read_mixtures
from hpaloc.mixtures.shape import cell_shape

CHANNELS = ("red", "green", "blue")
SIDE = 96
NUCLEOLI, MEMBRANE, CYTOSOL = 2, 13, 16


def cell(place, seed=0, middle=(44, 50), radii=(14, 38), stretch=1.2):
    """Return a tile (SIDE, SIDE, 3) of an elliptic cell, its protein in the nucleus, the cytoplasm or at the edge."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE)) - np.array(middle)[:, None, None]
    away = np.hypot(y * stretch, x / stretch)
    nucleus, whole = away < radii[0], away < radii[1]
    lit = {NUCLEOLI: nucleus, CYTOSOL: whole & ~nucleus, MEMBRANE: whole & (away > radii[1] - 4)}[place]
    planes = [40 + 60 * whole, 10 + 120 * lit, 12 + 180 * nucleus]
    return np.stack([(plane * rng.uniform(0.8, 1.2, y.shape)) * whole for plane in planes], axis=2).astype(np.uint8)


def cells(count, seed):
    """Return (n, SIDE, SIDE, 3) cells of different sizes and places, and their classes."""
    rng = np.random.default_rng(seed)
    single = np.array([NUCLEOLI, MEMBRANE, CYTOSOL])[np.arange(count) % 3]
    tiles = [
        cell(place, seed * 1000 + n, rng.integers(42, 54, 2), (rng.uniform(10, 16), rng.uniform(30, 40)))
        for n, place in enumerate(single)
    ]
    return np.stack(tiles), single


def share(tile, mask):
    green = tile[..., 1].astype(float)
    return green[mask].sum() / green.sum()


def drawn(tiles, single, count, seed, threads=1):
    shapes = [blendable_shape(tile, CHANNELS) for tile in tiles]
    return draw_blends(tiles, shapes, single, CHANNELS, count, seed, threads)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.8, 1.0])
def test_the_light_of_a_blend_is_shared_as_asked(fraction):
    tile = cell(NUCLEOLI, 1)
    other = cell(CYTOSOL, 2, middle=(50, 44), radii=(10, 30), stretch=1.0)
    shapes = cell_shape(tile, CHANNELS), cell_shape(other, CHANNELS)
    blend = blending.blended(tile, other, shapes, CHANNELS, fraction, turn=1.0, mirrored=True)
    np.testing.assert_array_equal(blend[..., [0, 2]], tile[..., [0, 2]])
    own, theirs = share(tile, shapes[0].nucleus), share(other, shapes[1].nucleus)
    assert own - theirs > 0.6
    # The other cell's cytoplasm lies in this one's cytoplasm, although its nucleus is elsewhere and smaller.
    assert share(blend, shapes[0].nucleus) == pytest.approx(fraction * own + (1 - fraction) * theirs, abs=0.06)
    assert not blend[..., 1][~shapes[0].cell].any()


def test_a_cell_without_nucleus_or_green_is_not_blended():
    tile, dark = cell(CYTOSOL), cell(CYTOSOL)
    dark[..., 1] = 0
    shape = cell_shape(tile, CHANNELS)
    assert blended(tile, dark, (shape, shape), CHANNELS, 0.5) is None
    assert cell_shape(np.zeros((SIDE, SIDE, 3), np.uint8), CHANNELS) is None
    no_nucleus = tile.copy()
    no_nucleus[..., 2] = 0
    assert cell_shape(no_nucleus, CHANNELS) is None


def test_blends_are_drawn_from_every_pair_of_locations_alike():
    tiles, single = cells(12, 1)
    single[3], single[4] = -1, NEGATIVE
    blends, fractions = drawn(tiles, single, 150, 7)
    assert blends.dtype == np.uint8
    assert len(blends) == len(fractions) == 150
    np.testing.assert_allclose(fractions.sum(1), 1, rtol=1e-5)
    assert set(np.flatnonzero(fractions.any(0))) == {NUCLEOLI, MEMBRANE, CYTOSOL}
    assert ((fractions > 0).sum(1) == 2).all()
    assert np.ptp((fractions > 0).sum(0)[[NUCLEOLI, MEMBRANE, CYTOSOL]]) < 40
    again = drawn(tiles, single, 150, 7)
    np.testing.assert_array_equal(again[0], blends)
    assert not np.array_equal(drawn(tiles, single, 150, 8)[1], fractions)
    with pytest.raises(ValueError, match="fewer than two"):
        drawn(tiles, np.where(single == CYTOSOL, CYTOSOL, NEGATIVE), 5, 0)


def test_cells_without_nucleus_or_green_light_cannot_be_blended():
    tiles, _ = cells(12, 1)
    tiles[5] = 0
    tiles[6, ..., 2] = 0
    # Light beside the cell is none of the cell's.
    tiles[7, ..., 1] = 0
    tiles[7, 0, 0, 1] = 1
    shapes = [blendable_shape(tile, CHANNELS) for tile in tiles]
    assert [n for n, shape in enumerate(shapes) if shape is None] == [5, 6, 7]


def test_pairs_that_give_no_blend_leave_no_gap(monkeypatch):
    tiles, single = cells(12, 1)
    whole = drawn(tiles, single, 150, 7)
    for one, on_threads in zip(whole, drawn(tiles, single, 150, 7, threads=3), strict=True):
        np.testing.assert_array_equal(one, on_threads)
    # Whose red a blend has, that cell's class has a part in it.
    owners = {tile[..., 0].tobytes(): n for n, tile in enumerate(tiles)}
    own = np.array([owners[blend[..., 0].tobytes()] for blend in whole[0]])
    assert (whole[1][np.arange(150), single[own]] > 0).all()
    # The fifth cell's light falls into no other.
    blend = blending.blended
    monkeypatch.setattr(blending, "blended", lambda *given: None if (given[1] == tiles[4]).all() else blend(*given))
    blends, fractions = drawn(tiles, single, 150, 7)
    assert 0 < len(blends) == len(fractions) < 150
    kept = {blend.tobytes() for blend in blends}
    np.testing.assert_array_equal(fractions, whole[1][[blend.tobytes() in kept for blend in whole[0]]])


def test_light_is_measured_where_it_is():
    places = {place: light_features(cell(place), CHANNELS) for place in (NUCLEOLI, MEMBRANE, CYTOSOL)}
    for values in places.values():
        assert values.dtype == np.float32
        assert values.shape == (33 + 9 * 2,)
        # Nine shells hold all the light.
        assert values[:9].sum() == pytest.approx(1, abs=1e-3)
    assert places[NUCLEOLI][:3].sum() > 0.6 > 0.2 > places[CYTOSOL][:3].sum()
    assert places[MEMBRANE][7:9].sum() > 2 * places[CYTOSOL][7:9].sum()
    assert places[MEMBRANE][10] > 2 * places[CYTOSOL][10]


def test_the_measure_of_light_does_not_depend_on_brightness_turn_or_size():
    tile = cell(MEMBRANE)
    dim, turned = tile.copy(), np.rot90(tile).copy()
    dim[..., 1] //= 2
    values = light_features(tile, CHANNELS)
    np.testing.assert_allclose(light_features(dim, CHANNELS), values, rtol=0.05, atol=0.03)
    np.testing.assert_allclose(light_features(turned, CHANNELS), values, atol=0.02)
    large = np.kron(tile, np.ones((2, 2, 1), np.uint8))
    np.testing.assert_allclose(light_features(large, CHANNELS)[:11], values[:11], atol=0.1)


def test_a_tile_without_light_or_cell_measures_zero():
    dark = cell(CYTOSOL)
    dark[..., 1] = 0
    for tile in (dark, np.zeros((SIDE, SIDE, 3), np.uint8), np.full((SIDE, SIDE, 3), 200, np.uint8)):
        assert not light_features(tile, CHANNELS).any()
    one = np.zeros((SIDE, SIDE, 3), np.uint8)
    one[40, 40] = 200
    assert np.isfinite(light_features(one, CHANNELS)).all()
    assert measure_light(np.stack([dark, cell(CYTOSOL)]), ("red", "green", "blue"), 2).shape == (2, 51)


def sure(fractions):
    """Return what a network says that sees the stronger of two locations alone."""
    return np.eye(N_CLASSES)[fractions.argmax(1)] * 0.95 + 0.05 / N_CLASSES


def test_a_reading_finds_fractions_that_a_sure_network_does_not_tell():
    tiles, single = cells(30, 1)
    blends, fractions = drawn(tiles, single, 250, 0)
    fractions = np.concatenate([fractions, np.eye(N_CLASSES)[single]])
    light = measure_light(np.concatenate([blends, tiles]), CHANNELS)
    reading = json.loads(json.dumps(learn_reading(sure(fractions), light, fractions, len(tiles))))
    check_reading(reading)
    assert reading["blends"] == 250
    assert reading["classes"] == [NAMES[index] for index in (NUCLEOLI, MEMBRANE, CYTOSOL)]
    others, theirs = cells(30, 2)
    mixed, true = drawn(others, theirs, 60, 1)
    read = read_mixtures(reading, sure(true), measure_light(mixed, CHANNELS))
    assert read.dtype == np.float32
    prototypes = np.array([row or [np.nan] * N_CLASSES for row in reading["prototypes"].values()])
    found = reading_fractions(read, prototypes)
    error = np.abs(found - true)[true > 0].mean()
    assert error < 0.1
    assert error < 0.5 * np.abs(sure(true) - true)[true > 0].mean()
    with pytest.raises(ValueError, match="outputs per cell"):
        read_mixtures(reading, sure(true), np.zeros((60, 3)))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": ["Cytosol", "Cytosol"]}, "classes"),
        ({"classes": ["Nowhere", "Cytosol"]}, "classes"),
        ({"classes": None}, "classes"),
        ({"classes": [["Cytosol"], "Nucleoli"]}, "classes"),
        ({"mean": "0.1"}, "mean|scale"),
        ({"mean": ["0.1", "0.2"]}, "mean"),
        ({"scale": [1.0]}, "scale"),
        ({"scale": [1.0, float("nan")]}, "scale"),
        ({"scale": [1.0, 0.0]}, "scale"),
        ({"classes": [], "coefficients": [], "intercept": []}, "classes"),
        ({"coefficients": [[1.0, 2.0]]}, "coefficients"),
        ({"coefficients": [[1.0, 2.0], [1.0]]}, "coefficients"),
        ({"intercept": [{}, 1]}, "intercept"),
    ],
)
def test_a_reading_from_elsewhere_is_checked(changes, what):
    good = {
        "classes": ["Cytosol", "Nucleoli"],
        "mean": [0.0, 0.0],
        "scale": [1.0, 1.0],
        "coefficients": [[1.0, 2.0], [3.0, 4.0]],
        "intercept": [0.0, 1.0],
    }
    check_reading(good)
    with pytest.raises(ValueError, match=f"mixtures.({what}) is"):
        check_reading(good | changes)
    with pytest.raises(ValueError, match="is not a table"):
        check_reading([good])


def test_fractions_of_a_mixture_of_prototypes_are_found_again():
    generator = np.random.default_rng(5)
    features = generator.random((60, 30))
    single = np.repeat([0, 5, 16], 20)
    prototypes = class_prototypes(features, single)
    assert np.isnan(prototypes[1]).all()
    true = np.array([[0.2, 0.0, 0.8], [0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    mixed = 3.0 * true @ prototypes[[0, 5, 16]]
    found = mixture_fractions(np.vstack([mixed, np.full(30, np.nan)]), prototypes)
    np.testing.assert_allclose(found[:3][:, [0, 5, 16]], true, atol=1e-9)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(found[:3].sum(axis=1), 1)


def test_fractions_of_readings_lie_between_what_prototypes_and_readings_say():
    prototypes = np.full((N_CLASSES, N_CLASSES), np.nan)
    prototypes[[0, 5]] = 0.0
    prototypes[0, [0, 5]], prototypes[5, [0, 5]] = (0.8, 0.2), (0.1, 0.9)
    read = np.zeros((4, N_CLASSES))
    read[0, [0, 5]] = 0.45, 0.55
    # A class without prototype is no location of theirs, whatever the reading says; -0.1 is nothing.
    read[1, [0, 5, 7]] = 0.8, -0.1, 0.4
    read[2, [0, 5]] = -0.2, -0.1
    read[3] = np.nan
    found = reading_fractions(read, prototypes)
    # Where no reading is positive the prototypes speak alone.
    below = np.full((N_CLASSES, N_CLASSES), np.nan)
    below[[0, 5]] = 0.0
    below[0, 0], below[5, 5] = 1.0, -0.5
    np.testing.assert_allclose(reading_fractions(read[2:3], below)[0, [0, 5]], [0, 1], atol=1e-9)
    np.testing.assert_allclose(found[0, [0, 5]], [(2 * 0.5 + 0.45) / 3, (2 * 0.5 + 0.55) / 3])
    np.testing.assert_allclose(found[1, [0, 5, 7]], [1, 0, 0], atol=1e-9)
    assert np.isnan(found[2:][:, [0, 5]]).all()
    # The one location of a field stays below 1 by a third of what its cells' readings give to others.
    pure = reading_fractions(prototypes[[0, 5]], prototypes)
    np.testing.assert_allclose(pure[:, [0, 5]], [[(2 + 0.8) / 3, 0.2 / 3], [0.1 / 3, (2 + 0.9) / 3]])
