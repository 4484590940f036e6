"""The networks' backend: weights that are checked before they are unpickled, and the real class with small networks."""

import json
import logging
import pickle
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from segmented_fields import best_ious, segment_files

from hpaloc.segmentation import weights
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.settings import NetworkWeights, SegmentationSettings
from hpaloc.simulate.field import simulate_field


class Server(BaseHTTPRequestHandler):
    content = bytes(range(256)) * 40
    asked: list[str | None]
    cut = 0

    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        type(self).asked.append(self.headers["Range"])
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    Server.asked, Server.cut = [], 0
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/net.pth"
    server.shutdown()
    server.server_close()


def test_a_broken_download_is_resumed(url, tmp_path):
    Server.cut = 4000
    with pytest.raises(weights.WeightsError):
        weights.fetch(url, tmp_path / "net.pth")
    assert not (tmp_path / "net.pth").exists()
    Server.cut = 0
    weights.fetch(url, tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == Server.content
    assert Server.asked == [None, f"bytes={len(Server.content) - 4000}-"]


def test_an_unreachable_server_is_named(tmp_path):
    with pytest.raises(weights.WeightsError, match=r"127\.0\.0\.1:9/net\.pth.*segmentation\.weights"):
        weights.fetch("http://127.0.0.1:9/net.pth", tmp_path / "net.pth")


def test_weights_are_recorded_at_first_use_and_refused_on_change(tmp_path, caplog):
    path = tmp_path / "net.pth"
    path.write_bytes(b"weights")
    with caplog.at_level(logging.INFO, "hpaloc"):
        found = weights.check(path)
    assert "first use" in caplog.text
    assert json.loads((tmp_path / "net.pth.sha256.json").read_text()) == {"size": 7, "sha256": found}
    assert weights.check(path) == found
    path.write_bytes(b"weightz")
    with pytest.raises(weights.WeightsError, match="nothing was loaded"):
        weights.check(path)


@pytest.mark.parametrize("record", ["", "[]", '{"size": 7}', "\xff"])
def test_a_record_that_is_none_is_named_and_nothing_is_unpickled(tmp_path, record):
    path = tmp_path / "net.pth"
    path.write_bytes(b"weights")
    (tmp_path / "net.pth.sha256.json").write_bytes(record.encode("latin-1"))
    with pytest.raises(weights.WeightsError, match=r"net\.pth\.sha256\.json: is not a record .* nothing was loaded"):
        weights.check(path)


def test_named_weights_that_are_absent_are_an_error(tmp_path):
    with pytest.raises(weights.WeightsError, match=r"segmentation\.weights\.nuclei: .*no such file"):
        weights.ready(NetworkWeights(nuclei=str(tmp_path / "no.pth")))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed; `make test-hpacellseg` installs it")
    pytest.importorskip("hpacellseg.cellsegmentator", reason="hpacellseg is not installed; `make test-hpacellseg`")
    from small_networks import write_networks

    paths = write_networks(tmp_path_factory.mktemp("weights"))
    return SegmentationSettings(backend="hpacellseg", device="cpu", weights=paths)


@pytest.mark.parametrize("colours", [("red", "yellow", "blue"), ("red", "blue")])
def test_networks_of_a_minute_find_the_cells_of_simulated_fields(settings, colours):
    scores = []
    for seed in (7, 8, 9):
        # Neither square nor a multiple of 32: hpacellseg's own methods give such fields back transposed.
        field = simulate_field("test", (0,), seed, shape=(620, 900))
        nuclei, cells = segment_field({colour: field.images[colour] for colour in colours}, 0.16, settings)
        assert cells.shape == nuclei.shape == (620, 900)
        np.testing.assert_array_equal(nuclei[nuclei > 0], cells[nuclei > 0])
        np.testing.assert_array_equal(np.unique(cells), np.arange(cells.max() + 1))
        hits = (best_ious(field.cells, cells) >= 0.6).sum()
        scores.append(2 * hits / (field.cells.max() + cells.max()))
    assert np.mean(scores) >= 0.8


def test_from_files_to_masks_through_the_driver(settings, tmp_path, monkeypatch):
    # The worker unpickles the networks, and looks for their class.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    field = simulate_field("test", (0,), 7, shape=(400, 520))
    table = segment_files(tmp_path, field.images, 0.16, settings, ["a", "b"])
    assert list(table["status"]) == ["ok", "ok"]
    assert (table["n_cells"] > 0).all()


@pytest.mark.parametrize("shape", [(1728, 1728), (310, 450), (33, 65)])
def test_networks_get_sides_of_32_whatever_the_field(settings, shape):
    # hpacellseg fails at 1728 px where padding is off, which is its default.
    from small_networks import SidesOf32

    from hpaloc.segmentation.hpacellseg import probability_maps

    stand_in = SimpleNamespace(nuclei_model=SidesOf32(), cell_model=SidesOf32(), device="cpu")
    images = {colour: np.zeros(shape, np.uint8) for colour in ("red", "yellow", "blue")}
    ((nuclei_map, cell_map),) = probability_maps(stand_in, [images], 0.08, settings.scale)
    assert nuclei_map.shape == cell_map.shape == (*shape, 3)


def test_maps_are_not_transposed(settings):
    from small_networks import SidesOf32

    from hpaloc.segmentation.hpacellseg import probability_maps

    stand_in = SimpleNamespace(nuclei_model=SidesOf32(), cell_model=SidesOf32(), device="cpu")
    images = {colour: np.zeros((200, 400), np.uint8) for colour in ("red", "yellow", "blue")}
    images["blue"][20:60, 300:380] = 255
    ((_, cell_map),) = probability_maps(stand_in, [images], 0.08, settings.scale)
    # Blue is the third channel in, and comes out of this network as the body.
    rows, columns = np.nonzero(cell_map[..., 2] > 200)
    assert (rows.min() // 20, rows.max() // 20) == (1, 2)
    assert (columns.min() // 20, columns.max() // 20) == (15, 18)


def test_hpacellsegs_own_prediction_is_never_called(settings, monkeypatch):
    # It passes `multichannel` to scikit-image, which 0.20 and later refuse.
    from hpacellseg.cellsegmentator import CellSegmentator

    def refuse(*_, **__):
        raise TypeError("rescale() got an unexpected keyword argument 'multichannel'")

    for method in ("pred_nuclei", "pred_cells"):
        monkeypatch.setattr(CellSegmentator, method, refuse)
    field = simulate_field("test", (0,), 7, shape=(310, 450))
    assert segment_field(field.images, 0.16, settings)[1].max() > 0


def test_whole_modules_load_where_torch_refuses_them_by_default(settings):
    import torch

    from hpaloc.segmentation.hpacellseg import load

    with pytest.raises(pickle.UnpicklingError):
        torch.load(settings.weights.cells)
    assert isinstance(load(settings).cell_model, torch.nn.Module)


def test_networks_of_the_published_architecture_load_and_run(settings, tmp_path, monkeypatch):
    pytest.importorskip("pytorch_zoo", reason="pytorch_zoo is not installed; `make test-hpacellseg`")
    import torch
    from pytorch_zoo import abstract_model, dpn
    from pytorch_zoo.unet import DPNUnet

    # It would fetch an encoder trained on ImageNet.
    encoder = dict(abstract_model.encoder_params["dpn92"], init_op=partial(dpn.dpn92, pretrained=False), url=None)
    monkeypatch.setitem(abstract_model.encoder_params, "dpn92", encoder)
    network = torch.nn.DataParallel(DPNUnet(3))
    paths = {name: str(tmp_path / f"{name}.pth") for name in ("nuclei", "cells")}
    for path in paths.values():
        torch.save(network, path)
    images = {colour: np.zeros((200, 260), np.uint8) for colour in ("red", "yellow", "blue")}
    _, cells = segment_field(images, 0.08, replace(settings, weights=paths))
    assert cells.shape == (200, 260)


def test_a_field_in_blocks_has_the_cells_of_the_field_in_one_piece(settings):
    field = simulate_field("blocks", (0,), 3, shape=(1000, 1300))
    _, cells = segment_field(field.images, 0.16, settings)
    nuclei, in_blocks = segment_field(field.images, 0.16, settings, chunk_above=900)
    assert cells.max() > 10
    assert (best_ious(cells, in_blocks) >= 0.95).mean() >= 0.95
    assert abs(int(in_blocks.max()) - int(cells.max())) <= 1
    np.testing.assert_array_equal(nuclei[nuclei > 0], in_blocks[nuclei > 0])
    np.testing.assert_array_equal(np.unique(in_blocks), np.arange(in_blocks.max() + 1))


@pytest.mark.parametrize("chunk_above", [None, 900])
def test_reduced_labelling_is_close_to_the_full_one(settings, chunk_above):
    field = simulate_field("reduced", (0,), 4, shape=(900, 1000))
    _, full = segment_field(field.images, 0.16, settings)
    _, reduced = segment_field(field.images, 0.16, replace(settings, reduced_labelling=True), chunk_above=chunk_above)
    assert not np.array_equal(full, reduced)
    # Not the mean: where networks of a minute are undecided, the two decide differently.
    assert np.median(best_ious(full, reduced)) >= 0.95


def test_fields_of_several_sizes_share_batches(settings):
    from hpaloc.segmentation.hpacellseg import load, probability_maps

    shapes = [(200, 260), (310, 224), (200, 260)]
    fields = [simulate_field(f"b{n}", (0,), n, shape=shape).images for n, shape in enumerate(shapes)]
    together = probability_maps(load(settings), fields, 0.16, settings.scale)
    for field, shape, (nuclei_map, cell_map) in zip(fields, shapes, together, strict=True):
        ((alone, _),) = probability_maps(load(settings), [field], 0.16, settings.scale)
        assert nuclei_map.shape == cell_map.shape == (*shape, 3)
        assert np.abs(alone.astype(int) - nuclei_map).max() <= 1


def test_nothing_is_unpickled_before_its_digest_is_checked(settings, tmp_path, caplog):
    torch = pytest.importorskip("torch")
    from hpaloc.segmentation import hpacellseg

    paths = {}
    for network in ("nuclei", "cells"):
        paths[network] = str(tmp_path / f"{network}.pth")
        torch.save(torch.nn.Identity(), paths[network])
        weights.check(tmp_path / f"{network}.pth")
    (tmp_path / "cells.pth").write_bytes(b"another file")
    with caplog.at_level(logging.INFO, "hpaloc"), pytest.raises(weights.WeightsError, match="nothing was loaded"):
        hpacellseg.load(replace(settings, weights=paths))
    assert "unpickling" not in caplog.text


def test_digests_are_taken_once_a_process_and_not_for_every_field(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed; `make test-hpacellseg` installs it")
    pytest.importorskip("hpacellseg.cellsegmentator", reason="hpacellseg is not installed; `make test-hpacellseg`")
    from hpaloc.segmentation import hpacellseg

    paths = {network: str(tmp_path / f"{network}.pth") for network in ("nuclei", "cells")}
    for path in paths.values():
        torch.save(torch.nn.Identity(), path)
    check, checked = weights.check, []
    monkeypatch.setattr(weights, "check", lambda path: checked.append(path.name) or check(path))
    first, second = (hpacellseg.load(SegmentationSettings(device="cpu", weights=paths)) for _ in range(2))
    assert first is second
    assert checked == ["nuclei.pth", "cells.pth"]


def test_the_log_says_that_the_digest_came_before_the_unpickling(settings, tmp_path, caplog):
    import torch

    from hpaloc.segmentation import hpacellseg

    paths = {network: str(tmp_path / f"{network}.pth") for network in ("nuclei", "cells")}
    for path in paths.values():
        torch.save(torch.nn.Identity(), path)
    with caplog.at_level(logging.INFO, "hpaloc"):
        hpacellseg.load(replace(settings, weights=paths))
    said = [record.getMessage() for record in caplog.records]
    for path in paths.values():
        checked = next(n for n, line in enumerate(said) if line.startswith(path) and "sha256" in line)
        assert checked < said.index(f"unpickling {path} (digest checked)")


def test_an_absent_gpu_is_an_error(settings):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    from hpaloc.segmentation import hpacellseg
    from hpaloc.segmentation.torch_networks import DeviceError, choose_device

    with pytest.raises(DeviceError, match="sees no GPU"):
        hpacellseg.load(replace(settings, device="cuda"))
    assert choose_device("auto") == "cpu"
