"""What layers answer to: features, the patches that drive units, and where in the image they come from."""

import keras
import numpy as np
import pandas as pd
import pytest
from model_inputs import patterned_tiles, write_model_folder, write_tile_shard
from workflow_runs import write_field

from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.interpretation.layers import (
    LAYERS,
    cut_patch,
    driving_patches,
    field_map,
    fields_to_map,
    layer_answers,
    layer_receptive_fields,
    random_network,
    read_tiles,
)
from hpaloc.levels import HEADROOM
from hpaloc.manifests import ManifestRow
from hpaloc.network.fully_convolutional import FullyConvolutionalResNet50
from hpaloc.network.inference import fold_batch_norm
from hpaloc.network.resnet import classifier
from hpaloc.tables import TableError
from hpaloc.tfrecord import cell_key

pytestmark = pytest.mark.network

SIZE = 64
CHANNELS = ("red", "green")
CONFIG = {"channels": list(CHANNELS), "head": "sigmoid", "input_size": SIZE, "units": 512}


@pytest.fixture(scope="module")
def images():
    return patterned_tiles(np.arange(12) % 4, SIZE, 2)


@pytest.fixture(scope="module")
def network(images):
    return random_network(CONFIG, images, 1)


@pytest.fixture(scope="module")
def folded(network):
    return fold_batch_norm(network)


def test_a_random_network_answers_alike_in_scale_and_differently_to_cells(network, images):
    # With the statistics of these images, a batch norm gives mean 0 and variance 1 over them.
    inside = keras.Model(network.input, network.get_layer("conv1_bn").output)(images.astype(np.float32)).numpy()
    np.testing.assert_allclose(inside.mean(axis=(0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(inside.std(axis=(0, 1, 2)), 1, atol=0.05)
    found = network(images.astype(np.float32), training=False).numpy()
    assert np.isfinite(found).all()
    assert found.std(axis=0).max() > 1e-3
    again = random_network(CONFIG, images, 1)(images.astype(np.float32), training=False).numpy()
    np.testing.assert_array_equal(found, again)


def test_features_are_means_over_the_tile_of_every_layer(folded, images):
    found = layer_answers(folded, images, batch_size=5)[0]
    widths = {"stem": 64, "stage 1": 256, "stage 2": 512, "stage 3": 1024, "stage 4": 2048, "embedding": 512}
    assert {name: values.shape for name, values in found.items()} == {n: (12, w) for n, w in widths.items()}
    maps = keras.Model(folded.input, folded.get_layer("conv3_block4_out").output)(images.astype(np.float32)).numpy()
    np.testing.assert_allclose(found["stage 2"], maps.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4)


def test_extremes_stand_where_the_map_has_them(folded, images):
    found = layer_answers(folded, images, units=3, batch_size=5)[1]
    for name, layer in LAYERS.items():
        maps = keras.Model(folded.input, folded.get_layer(layer.units).output)(images.astype(np.float32)).numpy()
        assert maps.shape[1] == SIZE // layer.stride
        for what, chosen in (("strongest", maps.max(axis=(1, 2))), ("weakest", maps.min(axis=(1, 2)))):
            np.testing.assert_allclose(found[name][what], chosen[:, :3], rtol=1e-3, atol=1e-4)
            y, x = np.moveaxis(found[name][f"{what}_at"] // layer.stride, -1, 0)
            at = maps[np.arange(12)[:, None], y, x, np.arange(3)]
            np.testing.assert_allclose(at, found[name][what], rtol=1e-3, atol=1e-4)


def test_a_patch_of_the_receptive_field_is_all_that_a_unit_sees(folded, images):
    """Painting over everything else leaves a stem unit's answer as it is; painting over its patch changes it."""
    side = int(layer_receptive_fields(folded, images).set_index("layer").loc["stem", "patch"])
    assert side == 7
    stem = keras.Model(folded.input, folded.get_layer(LAYERS["stem"].units).output)
    extremes = layer_answers(folded, images, units=1)[1]["stem"]
    # A cell whose strongest answer is not at the edge, where the patch is cut.
    inner = [cell for cell in range(12) if (np.abs(extremes["strongest_at"][cell, 0] - SIZE / 2) < SIZE / 2 - 4).all()]
    cell = inner[0]
    y, x = extremes["strongest_at"][cell, 0]
    only = np.zeros_like(images[cell])
    only[y - 3 : y + 4, x - 3 : x + 4] = cut_patch(images[cell], int(y), int(x), side)
    answer = stem(only[None].astype(np.float32)).numpy()[0, y // 2, x // 2, 0]
    assert answer == pytest.approx(extremes["strongest"][cell, 0], rel=1e-3)
    blank = stem(np.zeros((1, SIZE, SIZE, 2), np.float32)).numpy()[0, y // 2, x // 2, 0]
    assert blank != pytest.approx(answer, rel=0.01)


def test_receptive_fields_grow_and_stay_within_the_tile(folded, images):
    table = layer_receptive_fields(folded, images).set_index("layer")
    assert table["theoretical"].tolist() == [7, 35, 99, 291, 483]
    assert (table["patch"] <= SIZE).all()
    assert (table["radius_50"] <= table["radius_95"]).all()
    assert table.loc["stem", "radius_95"] <= 3 * 2**0.5
    assert table.loc["stage 1", "radius_95"] > table.loc["stem", "radius_95"]


def test_patches_are_cut_at_the_place_and_black_beyond_the_tile():
    tile = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE, 1)
    patch = cut_patch(tile, 10, 20, 5)
    np.testing.assert_array_equal(patch, tile[8:13, 18:23])
    corner = cut_patch(tile, 0, SIZE - 1, 5)
    assert (corner[:2] == 0).all()
    assert (corner[:, 3:] == 0).all()
    assert corner[2, 2] == tile[0, SIZE - 1]


def test_a_bright_field_gives_one_patch_and_not_all():
    images = np.full((6, SIZE, SIZE, 1), 1, np.uint8) * np.arange(1, 7, dtype=np.uint8)[:, None, None, None]
    answers = np.array([[9.0], [8.0], [7.0], [1.0], [2.0], [3.0]], np.float32)
    at = np.full((6, 1, 2), SIZE // 2)
    extremes = {"strongest": answers, "weakest": answers, "strongest_at": at, "weakest_at": at}
    fields = np.array(["a", "a", "a", "b", "b", "c"])
    cut = driving_patches(images, fields, extremes, 7, 4)
    assert cut[0, 0, :, 3, 3, 0].tolist() == [1, 6, 5, 0]
    assert cut[0, 1, :, 3, 3, 0].tolist() == [4, 6, 3, 0]


def test_tiles_are_read_in_the_order_of_the_cells_and_no_others(tmp_path, images):
    cells = write_tile_shard(tmp_path / "a", images[:7], CHANNELS)
    other = write_tile_shard(tmp_path / "b", images[7:], CHANNELS, start=100)
    paths = {colour: [tmp_path / shard / f"{colour}.tfrecord" for shard in "ab"] for colour in CHANNELS}
    table = pd.concat([cells.assign(shard=0, row=np.arange(7)), other.assign(shard=1, row=np.arange(5))])
    table["key"] = [cell_key(field, int(cell)) for field, cell in table[["field", "cell"]].to_numpy()]
    wanted = table.iloc[[9, 0, 11, 4]].reset_index(drop=True)
    np.testing.assert_array_equal(read_tiles(wanted, paths, CHANNELS, SIZE), images[[9, 0, 11, 4]])
    wanted.loc[0, "row"] = 0
    with pytest.raises(TableError, match="not the cell that the examples name"):
        read_tiles(wanted, paths, CHANNELS, SIZE)


def test_a_field_is_mapped_at_the_scale_of_the_tiles(tmp_path, network):
    field = write_field(tmp_path, "f", (0,), 1, shape=(192, 256))
    paths = {colour: str(tmp_path / f"f_{colour}.png") for colour in COLOURS}
    row = ManifestRow("f", (0,), 0.16, paths=paths)
    twin = FullyConvolutionalResNet50(network)
    picture, maps, pixel_size = field_map(
        twin, row, dict.fromkeys(COLOURS, (0.0, 255.0 / HEADROOM)), CHANNELS, box=128.0
    )
    # A cell of 128 px becomes one of 64 px, as in the tiles.
    assert picture.shape == (96, 128, 2)
    assert maps.shape == (96, 128, N_CLASSES)
    assert pixel_size == pytest.approx(0.32)
    assert ((maps >= 0) & (maps <= 1)).all()
    np.testing.assert_allclose(picture[..., 1].mean(), field.images["green"].mean(), rtol=0.05)
    # A field smaller than a tile, once resized, is mapped too.
    small, maps, _ = field_map(twin, row, dict.fromkeys(COLOURS, (0.0, 255.0 / HEADROOM)), CHANNELS, box=400.0)
    assert small.shape[:2] == maps.shape[:2] == (31, 41)


def test_each_mapped_field_shows_another_location():
    cells = pd.DataFrame(
        {"collection": "test", "field": list("aaabbccd"), "label": [1, 1, 1, 1, 1, 2, 2, 3], "mapped": True}
    )
    assert fields_to_map(cells, 2) == [("test", "a", 1), ("test", "c", 2)]
    assert len(fields_to_map(cells, 9)) == 3


def test_networks_of_other_input_are_refused(tmp_path):
    from hpaloc.interpretation.study import study_networks

    model = classifier(CHANNELS, "sigmoid", 32)
    folders = {
        name: write_model_folder(tmp_path / name, model, channels, "sigmoid", 32)
        for name, channels in (("trained", CHANNELS), ("held_out", ("blue", "green")))
    }
    cells = pd.DataFrame({"collection": [], "mapped": [], "few_shot": []})
    with pytest.raises(ValueError, match="its colours or input size are not those of"):
        study_networks(cells, {}, folders, tmp_path / "out", fields=1, seed=0)
