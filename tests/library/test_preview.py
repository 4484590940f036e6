"""The page of fields with the outlines of their cells."""

import base64
import re
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from tile_fields import CELLS, make_field, tile, write_shard

from hpaloc.browser.preview import MOST_FIELDS, write_preview
from hpaloc.images import ImageError


def shard(folder, ids, cells=CELLS):
    rows, segmentation = write_shard(folder, {id: make_field(number, cells=cells) for number, id in enumerate(ids)})
    of_cells, of_fields, _ = tile(rows, segmentation, folder)
    return rows, segmentation, pd.read_parquet(of_cells), pd.read_parquet(of_fields)


def pictures(page):
    """Return the pictures of a page by their captions."""
    found = re.findall(r'base64,([^"]+)"><figcaption>([^<]*)<', page)
    return {
        caption: cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        for text, caption in found
    }


def test_a_field_is_shown_with_the_outlines_of_its_cells(tmp_path):
    rows, segmentation, cells, fields = shard(tmp_path, ["a"])
    write_preview(tmp_path / "page.html", "test", rows, segmentation, cells, fields)
    [(caption, picture)] = pictures((tmp_path / "page.html").read_text()).items()
    assert caption == f"a: {len(CELLS)} cells"
    labels = make_field(0)[1]
    assert picture.shape == (*labels.shape, 3)
    inner = cv2.erode((labels > 0).astype(np.uint8), np.ones((3, 3))) > 0
    edges = (labels > 0) & ~inner
    far = cv2.dilate((labels > 0).astype(np.uint8), np.ones((9, 9))) == 0
    # White at the edges, black outside; blue where the nuclei are.
    assert picture[edges].min(axis=1).mean() > 120
    assert picture[far].mean() < 15
    nuclei = cv2.erode((make_field(0)[2] > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert picture[nuclei][:, 0].mean() > 1.5 * picture[inner & ~nuclei][:, 0].mean()


def test_names_are_text_and_a_large_shard_shows_some_fields(tmp_path):
    ids = [f"f{number}" for number in range(MOST_FIELDS)] + ["a<b>&c"]
    rows, segmentation, cells, fields = shard(tmp_path, ids, CELLS[1:2])
    write_preview(tmp_path / "page.html", "x<y", rows, segmentation, cells, fields)
    page = (tmp_path / "page.html").read_text()
    assert len(pictures(page)) == MOST_FIELDS
    assert f"{MOST_FIELDS} of the {MOST_FIELDS + 1} fields" in page
    assert "Cells of x&lt;y" in page
    write_preview(tmp_path / "page.html", "x", rows[-1:], segmentation, cells, fields[fields["field"] == ids[-1]])
    assert "a&lt;b&gt;&amp;c: 1 cell<" in (tmp_path / "page.html").read_text()


def test_fields_without_cells_or_red_and_rejected_fields_are_shown_as_they_are(tmp_path):
    rows, segmentation, cells, fields = shard(tmp_path, ["a", "b", "c"])
    rows[0] = replace(rows[0], paths={colour: path for colour, path in rows[0].paths.items() if colour != "red"})
    cells = cells[cells["field"] != "b"]
    fields.loc[fields["field"] == "c", "status"] = "rejected"
    write_preview(tmp_path / "page.html", "test", rows, segmentation, cells, fields)
    found = pictures((tmp_path / "page.html").read_text())
    assert list(found) == ["a: 4 cells", "b: 0 cells"]
    inner = cv2.erode((make_field(0)[1] > 0).astype(np.uint8), np.ones((7, 7))) > 0
    assert found["a: 4 cells"][inner][:, 2].mean() < 20 < found["b: 0 cells"][inner][:, 2].mean()


def test_a_field_that_can_no_longer_be_read_is_named(tmp_path):
    rows, segmentation, cells, fields = shard(tmp_path, ["a"])
    (tmp_path / "a_green.png").write_bytes(b"")
    with pytest.raises(ImageError, match="field a can no longer be read"):
        write_preview(tmp_path / "page.html", "test", rows, segmentation, cells, fields)
    assert not (tmp_path / "page.html").exists()
