"""Figures of an interpretation: what they show of which network, and that text is readable."""

import numpy as np
import pandas as pd
import pytest
from test_figures import assert_readable, drawn, texts

from hpaloc.classes import N_CLASSES
from hpaloc.figures import interpretation as figures
from hpaloc.figures.style import SHORT
from hpaloc.levels import HEADROOM

__all__ = ["drawn"]

CHANNELS = ("red", "green", "blue")
LAYERS = ["stem", *(f"stage {number}" for number in range(1, 5)), "embedding"]


def separation_table(networks=("trained", "random")):
    rows = [
        (network, layer, score, 0.1 * place, 0.1 * place - 0.05, 0.1 * place + 0.05, 0.05)
        for network in networks
        for place, layer in enumerate(LAYERS)
        for score in ("knn_accuracy", "silhouette")
    ]
    rows += [("CellProfiler", "", score, 0.4, 0.3, 0.5, 0.05) for score in ("knn_accuracy", "silhouette")]
    return pd.DataFrame(rows, columns=["network", "layer", "score", "value", "low", "high", "shuffled"])


@pytest.mark.parametrize("networks", [("trained", "random"), ("trained", "random", "shuffled_labels")])
def test_separation_shows_every_network_and_both_controls(tmp_path, drawn, networks):
    figures.separation(separation_table(networks), tmp_path / "separation")
    names = {text.get_text() for text in texts(drawn[0])}
    assert {"trained", "random weights", "labels of other groups", "CellProfiler features", *LAYERS} <= names
    assert ("trained on shuffled labels" in names) == ("shuffled_labels" in networks)
    lines = drawn[0].axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), 0.1 * np.arange(6))
    assert_readable(drawn[0])


def test_scores_that_are_not_there_are_no_text(tmp_path, drawn):
    # Every class held by one group alone: nothing is scored across groups.
    table = separation_table().assign(value=np.nan, low=np.nan, high=np.nan, shuffled=np.nan)
    table.to_csv(tmp_path / "separation.csv", index=False)
    found = figures.read_separation(tmp_path / "separation.csv")
    assert (found["layer"] == "").sum() == 2
    assert found[["value", "low", "high", "shuffled"]].dtypes.eq(float).all()
    figures.separation(found, tmp_path / "separation")
    for axes in drawn[0].axes:
        assert np.isnan(np.concatenate([line.get_ydata() for line in axes.get_lines()[:2]]).astype(float)).all()


def test_patches_stand_strongest_left_and_weakest_right(tmp_path, drawn):
    patches = np.zeros((2, 2, 3, 7, 7, 3), np.uint8)
    patches[1, 0, 2] = 200 / HEADROOM
    patches[0, 1, 0, ..., 1] = 90 / HEADROOM
    figures.patch_sheet(patches, CHANNELS, "stem: patches of 7 px", tmp_path / "patches")
    left, right = (axes.images[0].get_array() for axes in drawn[0].axes[:2])
    assert left[8:15, 16:23].min() == 207
    assert left[:7].max() in (0, 255)
    assert right[3, 3].tolist() == [9, 90, 9]
    assert_readable(drawn[0])


def test_every_colour_reaches_the_picture():
    for channels in (("green",), ("red", "green"), ("red", "green", "blue", "yellow")):
        for plane in range(len(channels)):
            planes = np.zeros((2, 2, len(channels)), np.uint8)
            planes[..., plane] = 100
            assert figures.to_rgb(planes, channels).max() > 0


def test_laid_over_each_other_no_two_colours_are_red_and_green():
    """Without the cones for red or for green a picture's red and green are one: blue must tell the stains apart."""
    planes = np.eye(3, dtype=np.uint8)[None] * 200
    red, green, _ = figures.to_rgb(planes, ("red", "green", "blue"))[0].astype(int)
    assert abs(red[2] - green[2]) > 100


def test_maps_have_a_legend_of_the_locations_present(tmp_path, drawn):
    rng = np.random.default_rng(0)
    rows = [
        (layer, method, label, *rng.normal(size=2))
        for layer in LAYERS
        for method in ("UMAP", "t-SNE")
        for label in range(N_CLASSES)
    ]
    figures.planar(pd.DataFrame(rows, columns=["layer", "method", "label", "x", "y"]), tmp_path / "planar")
    assert {"UMAP", "t-SNE", *LAYERS, *SHORT} <= {text.get_text() for text in texts(drawn[0])}
    assert_readable(drawn[0])


def test_units_show_both_networks_against_chance(tmp_path, drawn):
    rng = np.random.default_rng(0)
    places = [(name, layer) for name in ("trained", "random") for layer in LAYERS for _ in range(20)]
    units = pd.DataFrame(places, columns=["network", "layer"])
    units = units.assign(r=rng.uniform(-1, 1, len(units)), information=rng.uniform(0, 1, len(units)))
    layers = pd.DataFrame(
        {"network": name, "layer": layer, "what": what, "shuffled": 0.2, "significant": 0.7}
        for name in ("trained", "random")
        for layer in LAYERS
        for what in ("r", "information")
    )
    figures.units(units, layers, tmp_path / "units")
    assert {"trained", "random weights"} <= {text.get_text() for text in texts(drawn[0])}
    assert_readable(drawn[0])


def test_activation_maps_have_a_scale_bar_and_the_location_of_the_field(tmp_path, drawn):
    rng = np.random.default_rng(0)
    fields = pd.DataFrame({"collection": "test", "field": ["a", "b"], "label": [2, 14], "pixel_size": [0.3, 0.3]})
    pictures = [rng.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(2)]
    maps = [rng.random((60, 80, N_CLASSES)).astype(np.float16) * 0.2 for _ in range(2)]
    maps[0][:, :40, 7] = 1.0
    figures.activation_maps(fields, pictures, maps, CHANNELS, tmp_path / "maps")
    names = [text.get_text() for text in texts(drawn[0])]
    assert {SHORT[2], SHORT[14], "Golgi apparatus"} <= set(names)
    assert sum(name.endswith("µm") for name in names) == 2
    assert_readable(drawn[0])


def test_few_shot_curves_say_whether_the_classes_were_seen(tmp_path, drawn):
    curves = pd.DataFrame(
        [
            (space, learner, number, draw, 0.3 + 0.01 * number)
            for space in ("network", "CellProfiler", "random")
            for learner in ("logistic_regression", "knn", "random_forest")
            for number in (1, 2, 5, 10, 20, 50)
            for draw in range(3)
        ],
        columns=["features", "learner", "examples", "draw", "balanced_accuracy"],
    )
    figures.few_shot(curves, True, tmp_path / "held_out")
    figures.few_shot(curves, False, tmp_path / "seen")
    figures.few_shot(curves.iloc[:0], False, tmp_path / "none")
    unseen, seen, none = (" ".join(text.get_text() for text in texts(figure)) for figure in drawn)
    assert "classes held out" in unseen
    assert "classes seen in training" in seen
    assert "no class is in two groups" in none
    for figure in drawn:
        assert_readable(figure)
