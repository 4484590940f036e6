"""Activation maps of the cell browser: where they look, and that each belongs to its cell."""

import numpy as np
import pandas as pd
import pytest
from model_inputs import patterned_tiles, untrained_classifier, write_model_folder, write_tile_shard

from hpaloc.browser.activation import ActivationMaps, fold_activation_maps, shard_activation_maps
from hpaloc.tables import PROBABILITIES

pytestmark = pytest.mark.network

SIZE = 64
CHANNELS = ("green", "red")


@pytest.fixture(scope="module")
def network():
    return untrained_classifier(CHANNELS, SIZE)


def test_maps_are_fine_enough_and_their_strongest_place_is_one(network):
    maps_of = ActivationMaps(network)
    maps = maps_of(patterned_tiles(np.arange(5), SIZE, 2).astype(np.float32), np.arange(5))
    assert maps.shape == (5, maps_of.side, maps_of.side)
    assert maps_of.side >= 8
    assert maps.min() >= 0
    # A map is empty only where nothing speaks for the class.
    assert set(np.round(maps.max(axis=(1, 2)), 5)) <= {0.0, 1.0}
    assert (maps.max(axis=(1, 2)) > 0).any()


def test_a_map_depends_on_its_class_and_its_image_alone(network):
    maps_of = ActivationMaps(network)
    images = patterned_tiles(np.arange(4), SIZE, 2).astype(np.float32)
    together = maps_of(images, np.array([0, 3, 3, 7]))
    alone = maps_of(images[2:3], np.array([3]))
    np.testing.assert_allclose(together[2], alone[0], atol=1e-4)
    assert np.abs(maps_of(images[2:3], np.array([11])) - alone).max() > 1e-3


def test_the_maps_of_a_shard_are_in_the_order_of_its_predictions(network, tmp_path):
    folder = write_model_folder(tmp_path / "model", network, CHANNELS, "sigmoid", SIZE)
    tiles = patterned_tiles(np.arange(7), SIZE, 3)
    cells = write_tile_shard(tmp_path / "tiles", tiles, ("red", "green", "blue"))
    p = np.zeros((7, len(PROBABILITIES)), np.float32)
    classes = np.array([0, 3, 5, 3, 0, 9, 2])
    p[np.arange(7), classes] = 0.9
    table = pd.concat([cells, pd.DataFrame(p, columns=list(PROBABILITIES))], axis=1)
    table.to_parquet(tmp_path / "predictions.parquet")
    paths = {colour: tmp_path / "tiles" / f"{colour}.tfrecord" for colour in ("red", "green", "blue")}
    maps = shard_activation_maps(folder, paths, tmp_path / "predictions.parquet", batch_size=3, gpu="none")
    direct = ActivationMaps(network)(tiles[..., [1, 0]].astype(np.float32), classes)
    assert maps.dtype == np.uint8
    np.testing.assert_allclose(maps / 255, direct, atol=0.02)
    # The network runs for the fields that are shown.
    second = (table["field"] == "field1").to_numpy()
    some = shard_activation_maps(folder, paths, tmp_path / "predictions.parquet", gpu="none", fields={"field1"})
    assert 0 < second.sum() < 7
    np.testing.assert_allclose(some / 255, direct * second[:, None, None], atol=0.02)
    table.iloc[::-1].to_parquet(tmp_path / "predictions.parquet")
    with pytest.raises(ValueError, match="are not those of the tiles"):
        shard_activation_maps(folder, paths, tmp_path / "predictions.parquet", batch_size=3, gpu="none")
    table.iloc[:3].to_parquet(tmp_path / "predictions.parquet")
    with pytest.raises(ValueError, match=r"tiles|has 3 cells"):
        shard_activation_maps(folder, paths, tmp_path / "predictions.parquet", batch_size=3, gpu="none")


def test_in_a_cross_validation_a_map_is_of_the_network_that_predicts_the_cell(network, tmp_path):
    other = untrained_classifier(CHANNELS, SIZE)
    # The second network takes each location for the next one.
    location = other.get_layer("location")
    location.set_weights([np.roll(weights, 1, axis=-1) for weights in location.get_weights()])
    folders = [
        write_model_folder(tmp_path / f"model{fold}", model, CHANNELS, "sigmoid", SIZE)
        for fold, model in ((1, network), (2, other))
    ]
    tiles = patterned_tiles(np.arange(12), SIZE, 3)
    cells = write_tile_shard(tmp_path / "tiles", tiles, ("red", "green", "blue"))
    p = 0.9 * np.eye(len(PROBABILITIES), dtype=np.float32)[:12]
    table = pd.concat([cells, pd.DataFrame(p, columns=list(PROBABILITIES))], axis=1)
    table.to_parquet(tmp_path / "joined.parquet")
    # The fields before and after it are of the first fold.
    second = (table["field"] == "field1").to_numpy()
    parts = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for path, rows in zip(parts, (~second, second), strict=True):
        table[rows].to_parquet(path)
    paths = {colour: tmp_path / "tiles" / f"{colour}.tfrecord" for colour in ("red", "green", "blue")}
    maps = fold_activation_maps(folders, paths, parts, tmp_path / "joined.parquet", gpu="none")
    images = tiles[..., [1, 0]].astype(np.float32)
    by_first, by_second = (ActivationMaps(model)(images, np.arange(12)) for model in (network, other))
    assert np.abs(by_first - by_second).max(axis=(1, 2)).min() > 0.1
    expected = np.where(second[:, None, None], by_second, by_first)
    np.testing.assert_allclose(maps / 255, expected, atol=0.02)
    shown = {"field1", cells["field"].iloc[0]}
    some = fold_activation_maps(folders, paths, parts, tmp_path / "joined.parquet", gpu="none", fields=shown)
    np.testing.assert_allclose(some / 255, expected * table["field"].isin(shown).to_numpy()[:, None, None], atol=0.02)
