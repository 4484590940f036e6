"""The networks' backend: weights that are checked before they are unpickled, and the real class with small networks."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import numpy as np
import pytest

from hpaloc.segmentation import segment_field, weights
from hpaloc.simulate import simulate_field


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
    with pytest.raises(weights.WeightsError, match="nothing was unpickled"):
        weights.check(path)


def test_named_weights_that_are_absent_are_an_error(tmp_path):
    with pytest.raises(weights.WeightsError, match=r"segmentation\.weights\.nuclei: .*no such file"):
        weights.ready({"weights": {"nuclei": str(tmp_path / "no.pth"), "cells": None}})


def train(torch, fields, colours, labels_of):
    """A small network of hpacellseg's interface: (N, 3, h, w) in, (N, 3, h, w) out: nothing, border, body."""
    from hpaloc.segmentation.hpacellseg import MEAN, STD, _prepared

    torch.manual_seed(0)
    layers = []
    for channels, dilation in ((3, 1), (16, 2), (16, 4), (16, 8)):
        layers += [torch.nn.Conv2d(channels, 16, 3, padding=dilation, dilation=dilation), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(16, 3, 1))
    inputs, targets = [], []
    for field in fields:
        shape = tuple(side // 2 for side in field.cells.shape)
        small = [_prepared(field.images[colour], shape) for colour in colours]
        labels = cv2.resize(labels_of(field).astype(np.float32), shape[::-1], interpolation=cv2.INTER_NEAREST)
        border = (cv2.dilate(labels, np.ones((3, 3))) != cv2.erode(labels, np.ones((3, 3)))) & (labels > 0)
        target = np.where(labels > 0, np.where(border, 1, 2), 0)
        inputs.append((np.stack(small) - MEAN) / STD)
        targets.append(np.pad(target, [(32, 32 + (-side) % 32) for side in shape], mode="symmetric"))
    x, y = torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets)).long()
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("hpacellseg.cellsegmentator", reason="hpacellseg is not installed")
    folder = tmp_path_factory.mktemp("weights")
    fields = [simulate_field(f"train{n}", (0,), n, shape=(384, 384)) for n in range(2)]
    torch.save(train(torch, fields, ["blue"] * 3, lambda f: f.nuclei), folder / "nuclei.pth")
    torch.save(train(torch, fields, ["red", "yellow", "blue"], lambda f: f.cells), folder / "cells.pth")
    paths = {"nuclei": str(folder / "nuclei.pth"), "cells": str(folder / "cells.pth")}
    return {"backend": "hpacellseg", "scale": 0.25, "device": "cpu", "weights": paths}


def test_from_field_to_masks_through_the_real_class(settings):
    # 310 x 450 px is neither square nor a multiple of 32, in which hpacellseg's own methods fail.
    field = simulate_field("test", (0,), 7, shape=(310, 450))
    nuclei, cells = segment_field(field.images, 0.16, settings)
    assert cells.shape == nuclei.shape == (310, 450)
    np.testing.assert_array_equal(nuclei[nuclei > 0], cells[nuclei > 0])
    truth, found = field.cells > 0, cells > 0
    assert (truth & found).sum() / (truth | found).sum() > 0.6
    assert 0.5 * field.cells.max() <= cells.max() <= 1.5 * field.cells.max()


def test_fields_of_several_sizes_share_batches(settings):
    from hpaloc.segmentation.hpacellseg import load, probability_maps

    shapes = [(200, 260), (310, 224), (200, 260)]
    fields = [simulate_field(f"b{n}", (0,), n, shape=shape).images for n, shape in enumerate(shapes)]
    together = probability_maps(load(settings), fields, 0.16, settings)
    for field, shape, (nuclei_map, cell_map) in zip(fields, shapes, together, strict=True):
        ((alone, _),) = probability_maps(load(settings), [field], 0.16, settings)
        assert nuclei_map.shape == cell_map.shape == (*shape, 3)
        assert np.abs(alone.astype(int) - nuclei_map).max() <= 1


def test_nothing_is_unpickled_before_its_digest_is_checked(settings, tmp_path, caplog):
    torch = pytest.importorskip("torch")
    from hpaloc.segmentation import hpacellseg

    paths = {}
    for network in settings["weights"]:
        paths[network] = str(tmp_path / f"{network}.pth")
        torch.save(torch.nn.Identity(), paths[network])
        weights.check(tmp_path / f"{network}.pth")
    (tmp_path / "cells.pth").write_bytes(b"another file")
    with caplog.at_level(logging.INFO, "hpaloc"), pytest.raises(weights.WeightsError, match="nothing was unpickled"):
        hpacellseg.load(dict(settings, weights=paths))
    assert "unpickling" not in caplog.text


def test_an_absent_gpu_is_an_error(settings):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    from hpaloc.segmentation import hpacellseg

    with pytest.raises(hpacellseg.DeviceError, match="sees no GPU"):
        hpacellseg.load(dict(settings, device="cuda"))
    assert hpacellseg.choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"segmentation\.device"):
        hpacellseg.choose_device("tpu")
