"""Networks that are TorchScript: the same networks as pickles, and those of InstanSeg."""

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
from segmented_fields import best_ious, segment_files

from hpaloc.files import digest
from hpaloc.segmentation import weights
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.settings import NetworkWeights, SegmentationSettings
from hpaloc.simulate.field import simulate_field


def test_a_published_file_that_is_another_is_neither_loaded_nor_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "hpaloc").mkdir()
    path = tmp_path / "hpaloc/nuclei_model.pt"
    path.write_bytes(b"another")
    scripts = NetworkWeights(format="torchscript")
    with pytest.raises(
        weights.WeightsError, match=r"nuclei_model\.pt: sha256 \w+ is not that of the published file, 8d"
    ):
        weights.ready(scripts)
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    own = weights.Published("https://example.org/nuclei_model.pt", digest(path))
    monkeypatch.setitem(weights.PUBLISHED["torchscript"], "nuclei", own)
    monkeypatch.setitem(weights.PUBLISHED["torchscript"], "cells", own)
    assert weights.ready(scripts) == [path, path]


def test_there_is_no_published_script_for_fields_without_yellow(tmp_path):
    scripts = NetworkWeights(format="torchscript")
    with pytest.raises(
        weights.WeightsError, match="cells_without_yellow: no published network of the format torchscript is known"
    ):
        weights.find(scripts, "cells_without_yellow")
    own = tmp_path / "own.pt"
    own.write_bytes(b"own")
    assert weights.find(replace(scripts, cells_without_yellow=str(own)), "cells_without_yellow") == own


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder with small networks for fields of 0.16 µm per pixel, as pickles (.pth) and as TorchScript (.pt)."""
    torch = pytest.importorskip("torch", reason="torch is not installed; `make test-torchscript` installs it")
    from small_networks import write_networks

    folder = tmp_path_factory.mktemp("networks")
    for name, path in write_networks(folder).items():
        network = torch.load(path, weights_only=False)
        torch.jit.trace(network, torch.zeros(1, 3, 64, 64)).save(str(folder / f"{name}.pt"))
    return folder


@pytest.fixture(scope="module")
def settings(networks):
    scripts = {name: str(networks / f"{name}.pt") for name in weights.NETWORKS["hpacellseg"]}
    return SegmentationSettings(
        backend="hpacellseg", device="cpu", weights=NetworkWeights(**scripts, format="torchscript")
    )


@pytest.mark.parametrize("colours", [("red", "yellow", "blue"), ("red", "blue")])
def test_scripts_give_the_masks_of_the_pickles(networks, settings, colours):
    import torch

    from hpaloc.segmentation.hpacellseg import Networks, probability_maps
    from hpaloc.segmentation.labelling import label_maps

    found = weights.used_networks("hpacellseg", "yellow" in colours)
    pickles = Networks(*(torch.load(networks / f"{name}.pth", weights_only=False) for name in found), "cpu")
    for seed in (7, 8):
        # More than one call: TorchScript compiles in the first.
        field = simulate_field("test", (0,), seed, shape=(620, 900))
        images = {colour: field.images[colour] for colour in colours}
        nuclei, cells = segment_field(images, 0.16, settings)
        (maps,) = probability_maps(pickles, [images], 0.16, settings.scale)
        for one, other in zip((nuclei, cells), label_maps(*maps, 0.16), strict=True):
            np.testing.assert_array_equal(one, other)
        assert (best_ious(field.cells, cells) >= 0.6).mean() > 0.5


def test_from_files_to_masks_through_the_driver(settings, tmp_path):
    field = simulate_field("test", (0,), 7, shape=(400, 520))
    table = segment_files(tmp_path, field.images, 0.16, settings, ["a", "b"])
    assert list(table["status"]) == ["ok", "ok"]
    assert (table["n_cells"] > 0).all()


@pytest.mark.parametrize("content", [b"no network", None])
def test_a_file_that_is_not_torchscript_is_named(networks, settings, tmp_path, content):
    from hpaloc.segmentation.hpacellseg import load

    path = tmp_path / "nuclei.pt"
    path.write_bytes(content or (networks / "nuclei.pth").read_bytes())
    with pytest.raises(weights.WeightsError, match=r"nuclei\.pt: is not TorchScript \("):
        load(replace(settings, weights=replace(settings.weights, nuclei=str(path))))


def test_a_script_is_loaded_after_its_digest_is_checked(settings, caplog):
    from hpaloc.segmentation.hpacellseg import load

    load.cache_clear()
    with caplog.at_level(logging.INFO, "hpaloc"):
        load(settings)
    said = [record.getMessage() for record in caplog.records]
    for path in (settings.weights.nuclei, settings.weights.cells):
        checked = next(n for n, line in enumerate(said) if line.startswith(path) and "sha256" in line)
        assert checked < said.index(f"loading {path} (digest checked)")


def discs(shape=(600, 800), pixel_size=0.2):
    """Return images of round cells of 16 µm around nuclei of 8 µm, and the label image of these cells."""
    rng = np.random.default_rng(0)
    images = {colour: rng.normal(60, 5, shape).clip(0).astype(np.uint16) for colour in ("red", "yellow", "blue")}
    cells = np.zeros(shape, np.int32)
    step = round(22 / pixel_size)
    places = [(y, x) for y in range(step // 2, shape[0], step) for x in range(step // 2, shape[1], step)]
    for id, (y, x) in enumerate(places, start=1):
        for colours, radius, level in ((("red", "yellow"), 8, 900), (("blue",), 4, 3000)):
            for colour in colours:
                cv2.circle(images[colour], (x, y), round(radius / pixel_size), level, -1)
        cv2.circle(cells, (x, y), round(8 / pixel_size), id, -1)
    return images, cells


@pytest.fixture(scope="module")
def instanseg(tmp_path_factory):
    """The settings of a stand-in with the interface of InstanSeg's files."""
    pytest.importorskip("torch", reason="torch is not installed; `make test-torchscript` installs it")
    from small_networks import write_instanseg

    path = tmp_path_factory.mktemp("instanseg") / "instanseg.pt"
    write_instanseg(path)
    return SegmentationSettings(backend="instanseg", device="cpu", weights=NetworkWeights(instanseg=str(path)))


@pytest.mark.parametrize("pixel_size", [0.2, 0.5, 0.65])
def test_a_network_of_instanseg_finds_cells_at_its_own_pixel_size(instanseg, pixel_size):
    images, true = discs(pixel_size=pixel_size)
    nuclei, cells = segment_field(images, pixel_size, instanseg)
    assert nuclei.shape == cells.shape == true.shape
    assert nuclei.dtype == cells.dtype == np.uint16
    assert best_ious(true, cells).min() > 0.8
    assert cells.max() == true.max()
    np.testing.assert_array_equal(np.unique(cells), np.arange(cells.max() + 1))
    np.testing.assert_array_equal(nuclei[nuclei > 0], cells[nuclei > 0])
    assert set(np.unique(nuclei)) == set(np.unique(cells))


def test_a_field_without_red_and_yellow_or_without_cells_is_segmented(instanseg):
    images, true = discs()
    _, cells = segment_field({"blue": images["blue"]}, 0.2, instanseg)
    assert cells.max() == true.max()
    flat = dict.fromkeys(images, np.full((300, 400), 60, np.uint16))
    nuclei, cells = segment_field(flat, 0.2, instanseg)
    assert not nuclei.any()
    assert not cells.any()


def test_blocks_have_the_cells_of_the_field_in_one_piece(instanseg, monkeypatch):
    from hpaloc.segmentation import instanseg as backend

    network, device = backend.load(instanseg)
    windows = []

    def counted(window):
        windows.append(tuple(window.shape[2:]))
        return network(window)

    counted.pixel_size = network.pixel_size
    monkeypatch.setattr(backend, "load", lambda settings: (counted, device))
    images, _ = discs((1100, 1270), 0.5)
    nuclei, cells = segment_field(images, 0.5, instanseg, chunk_above=6144)
    assert windows == [(1100, 1270)]
    in_blocks = segment_field(images, 0.5, instanseg, chunk_above=600)
    assert len(windows) > 3
    assert max(map(max, windows[1:])) <= 800
    windows.clear()
    segment_field({colour: np.tile(image, (1, 2)) for colour, image in images.items()}, 0.5, instanseg)
    assert max(map(max, windows)) <= 1280
    windows.clear()
    small = {colour: image[:50, :300] for colour, image in images.items()}
    assert segment_field(small, 0.5, instanseg)[1].shape == (50, 300)
    assert windows == [(64, 300)]
    assert (best_ious(cells, in_blocks[1]) == 1).all()
    assert in_blocks[1].max() == cells.max()
    np.testing.assert_array_equal(in_blocks[0] > 0, nuclei > 0)


def test_a_network_of_nuclei_alone_is_refused(instanseg, tmp_path):
    from small_networks import write_instanseg

    from hpaloc.segmentation.instanseg import load

    write_instanseg(tmp_path / "nuclei.pt", both=False)
    with pytest.raises(weights.WeightsError, match=r"nuclei\.pt: is not a network of InstanSeg that finds both"):
        load(replace(instanseg, weights=NetworkWeights(instanseg=str(tmp_path / "nuclei.pt"))))


def test_no_network_of_instanseg_is_fetched():
    with pytest.raises(
        weights.WeightsError, match=r"segmentation\.weights\.instanseg: no published network .* docs/backends\.md"
    ):
        weights.ready(NetworkWeights(), backend="instanseg")


def test_a_shard_is_segmented_by_instanseg(instanseg, tmp_path):
    images, true = discs()
    assert segment_files(tmp_path, images, 0.2, instanseg, ["a"])["n_cells"].tolist() == [true.max()]
