"""The pixel size and the bits that headers of image files say, and what is done with them."""

import gzip
import logging
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from PIL import Image

from hpaloc import image_metadata, sheet
from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.figures.data import draw_data
from hpaloc.image_metadata import (
    ImageMetadata,
    PixelSizeError,
    check_pixel_size,
    read_each,
    read_metadata,
    resolve_pixel_size,
)
from hpaloc.interpretation.morphology import measure_collections
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import ManifestRow, read_manifest
from hpaloc.masks import mask_path
from hpaloc.scan import scan_collection, write_scan
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.simulate.field import simulate_field
from hpaloc.tiles import tile_shard

ROOT = Path(__file__).parents[2]
IMAGE = np.random.default_rng(0).integers(0, 4096, (48, 64)).astype(np.uint16)


def tiff(path, **options):
    tifffile.imwrite(path, IMAGE, **options)
    return path


def ome(path, x, y=None, **more):
    sizes = {"PhysicalSizeX": x, "PhysicalSizeY": x if y is None else y}
    return tiff(path, ome=True, metadata={"axes": "YX", **sizes, **more})


def imagej(path, resolution, unit, **options):
    more = options.pop("metadata", {})
    return tiff(path, imagej=True, resolution=resolution, metadata={"unit": unit, **more}, **options)


def png(path, *chunks, image=IMAGE):
    """Write a PNG with further chunks (kind, content) after its header."""
    Image.fromarray(image).save(path)
    data = path.read_bytes()
    for kind, content in chunks:
        chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        data = data[:33] + chunk + data[33:]
    path.write_bytes(data)
    return path


def jpeg(path, unit, x, y=None):
    Image.fromarray((IMAGE >> 4).astype(np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:13] + struct.pack(">BHH", unit, x, x if y is None else y) + data[18:])
    return path


def size_of(path):
    size = read_metadata(path).pixel_size
    return None if size is None else tuple(round(side, 6) for side in size)


def test_the_bounds_are_those_of_the_configuration_and_of_sheets():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    number = schema["properties"]["pixel_size"]["oneOf"][0]
    assert image_metadata.PIXEL_SIZES == sheet._PIXEL_SIZES == (number["minimum"], number["maximum"])


@pytest.mark.parametrize(
    ("unit", "number"),
    [
        (None, 0.16), ("µm", 0.16), ("\u03bcm", 0.16), ("nm", 160), ("pm", 160000), ("Å", 1600), ("mm", 0.00016),
        ("cm", 0.000016), ("m", 0.00000016), ("in", 0.16 / 25400), ("inch", 0.16 / 25400), ("thou", 0.16 / 25.4),
    ],
)  # fmt: skip
def test_ome_xml_in_every_unit(tmp_path, unit, number):
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    path = ome(tmp_path / "a.ome.tif", number, **units)
    assert size_of(path) == (0.16, 0.16)
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert size_of(tmp_path / "a.tif.gz") == (0.16, 0.16)


def test_x_and_y_have_their_own_unit(tmp_path):
    path = ome(tmp_path / "a.ome.tif", 0.16, 320, PhysicalSizeXUnit="µm", PhysicalSizeYUnit="nm")
    assert size_of(path) == (0.16, 0.32)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "Mm", "furlong", ""])
def test_units_that_are_no_length_of_a_pixel_say_nothing(tmp_path, unit):
    assert size_of(ome(tmp_path / "a.ome.tif", 0.16, PhysicalSizeXUnit=unit, PhysicalSizeYUnit=unit)) is None
    assert size_of(imagej(tmp_path / "a.tif", (6.25, 6.25), unit)) is None


@pytest.mark.parametrize("number", [0, -0.16, 1, 72, 300, 1e-9, float("nan"), float("inf"), "0,16", "unknown"])
def test_placeholders_and_nonsense_in_ome_xml_say_nothing(tmp_path, number):
    assert size_of(ome(tmp_path / "a.ome.tif", number)) is None


@pytest.mark.parametrize("unit", ["micron", "microns", "um", "\\u00B5m", "micrometer", "Micron"])
def test_microns_of_imagej(tmp_path, unit):
    path = imagej(tmp_path / "a.tif", (6.25, 6.25), unit)
    assert size_of(path) == (0.16, 0.16)
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert size_of(tmp_path / "a.tif.gz") == (0.16, 0.16)


@pytest.mark.parametrize(("unit", "per_micron"), [("nm", 1e-3), ("mm", 1e3), ("cm", 1e4), ("inch", 25400), ("m", 1e6)])
def test_other_units_of_imagej(tmp_path, unit, per_micron):
    assert size_of(imagej(tmp_path / "a.tif", (6.25 * per_micron, 3.125 * per_micron), unit)) == (0.16, 0.32)


def test_imagej_beside_a_resolution_unit(tmp_path):
    """Programs write a resolution per cm or inch beside ImageJ's unit, or one per µm with a unit that is not meant."""
    for unit, resolution in (("CENTIMETER", 62500), ("INCH", 158750), ("INCH", 6.25), ("CENTIMETER", 6.25)):
        path = imagej(tmp_path / "a.tif", (resolution, resolution), "um", resolutionunit=unit)
        assert size_of(path) == (0.16, 0.16), (unit, resolution)
    assert size_of(imagej(tmp_path / "a.tif", (6.25, 3.125), "um", metadata={"yunit": "nm"})) is None
    assert size_of(imagej(tmp_path / "a.tif", (6.25, 0.003125), "um", metadata={"yunit": "nm"})) == (0.16, 0.32)


def test_the_display_range_of_imagej_is_not_that_of_the_detector(tmp_path):
    path = imagej(tmp_path / "a.tif", (6.25, 6.25), "um", metadata={"min": 0.0, "max": 1023.0})
    assert read_metadata(path).significant_bits is None


def test_an_unknown_number_per_unit_says_nothing(tmp_path):
    assert size_of(imagej(tmp_path / "a.tif", (1, 1), "um")) is None
    assert size_of(tiff(tmp_path / "a.tif")) is None
    assert size_of(tiff(tmp_path / "a.tif", resolution=(6.25, 6.25), resolutionunit="NONE")) is None
    path = tiff(tmp_path / "a.tif", resolution=(1, 1), resolutionunit="CENTIMETER")
    for ratio in ((0, 0), (0, 1), (1, 0), (2**32 - 1, 1), (1, 2**32 - 1)):
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages[0].tags["XResolution"].overwrite(ratio)
        assert size_of(path) is None, ratio


@pytest.mark.parametrize("dpi", [72, 96, 150, 300, 600, 1200])
def test_resolutions_of_printers_and_screens_say_nothing(tmp_path, dpi):
    per_cm, per_metre = round(dpi / 2.54), round(dpi / 0.0254)
    assert size_of(tiff(tmp_path / "a.tif", resolution=(dpi, dpi))) is None
    assert size_of(tiff(tmp_path / "a.tif", resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")) is None
    assert size_of(png(tmp_path / "a.png", (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)))) is None
    assert size_of(jpeg(tmp_path / "a.jpg", 1, dpi)) is None
    assert size_of(jpeg(tmp_path / "a.jpg", 2, per_cm)) is None


@pytest.mark.parametrize(
    ("unit", "resolution"), [("CENTIMETER", 62500), ("INCH", 158750), ("MILLIMETER", 6250), ("MICROMETER", 6.25)]
)
def test_the_resolution_of_plain_tiff(tmp_path, unit, resolution):
    path = tiff(tmp_path / "a.tif", resolution=(resolution, resolution / 2), resolutionunit=unit)
    assert size_of(path) == (0.16, 0.32)


def test_a_gzipd_tiff_whose_tags_are_at_its_end(tmp_path):
    data = np.random.default_rng(1).integers(0, 2**16, (256, 256)).astype(np.uint16)
    path = tmp_path / "a.tif"
    Image.fromarray(data).save(path, compression="tiff_lzw", dpi=(158750, 158750))
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].offset > image_metadata._NEAR
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert size_of(tmp_path / "a.tif.gz") == size_of(path) == (0.16, 0.16)


def test_png_and_jpeg(tmp_path):
    metre = struct.pack(">IIB", 6250000, 3125000, 1)
    assert read_metadata(png(tmp_path / "a.png", (b"pHYs", metre), (b"sBIT", b"\x0c"))) == ImageMetadata(
        (0.16, 0.32), 12
    )
    for wrong in (metre[:8] + b"\0", struct.pack(">IIB", 0, 0, 1), struct.pack(">IIB", 1, 1, 1), b"", b"\0" * 40):
        assert size_of(png(tmp_path / "a.png", (b"pHYs", wrong))) is None
    assert size_of(jpeg(tmp_path / "a.jpg", 2, 62500, 31250)) == (0.16, 0.32)
    assert size_of(jpeg(tmp_path / "a.jpg", 1, 63500)) == (0.4, 0.4)
    assert size_of(jpeg(tmp_path / "a.jpg", 0, 62500)) is None


def test_significant_bits(tmp_path):
    assert read_metadata(ome(tmp_path / "a.tif", 0.16, SignificantBits=12)).significant_bits == 12
    assert read_metadata(ome(tmp_path / "a.tif", 1, SignificantBits=12)) == ImageMetadata(None, 12)
    assert read_metadata(ome(tmp_path / "a.tif", 0.16, SignificantBits=99)) == ImageMetadata((0.16, 0.16), None)
    # The end of a detector's range, and the brightest pixel of an image.
    for most, bits in ((4095, 12), (3821, None), (0, None)):
        path = tiff(tmp_path / "b.tif", extratags=[(281, 3, 1, most, True)])
        assert read_metadata(path).significant_bits == bits, most
    rgb = np.zeros((20, 20, 4), np.uint8)
    path = png(tmp_path / "a.png", (b"sBIT", b"\x06\x07\x06\x08"), image=rgb)
    assert read_metadata(path).significant_bits == 7
    assert read_metadata(png(tmp_path / "a.png", (b"sBIT", b"\x63"))).significant_bits is None


def described(path, text):
    return tiff(path, description=text.encode(), metadata=None)


def xml(*images, attributes=""):
    return f'<?xml version="1.0"?><OME {attributes}>{"".join(images)}</OME>'


def image(size, data=""):
    return f'<Image ID="Image:0"><Pixels PhysicalSizeX="{size}" PhysicalSizeY="{size}">{data}</Pixels></Image>'


def test_the_image_of_this_file_counts_in_the_xml_of_a_data_set(tmp_path):
    def part(size, name, uuid):
        return image(size, f'<TiffData IFD="0"><UUID FileName="{name}">{uuid}</UUID></TiffData>')

    both = part(0.16, "one.tif", "urn:1"), part(0.32, "two.tif", "urn:2")
    assert size_of(described(tmp_path / "renamed.tif", xml(*both, attributes='UUID="urn:2"'))) == (0.32, 0.32)
    assert size_of(described(tmp_path / "one.tif", xml(*both))) == (0.16, 0.16)
    assert size_of(described(tmp_path / "other.tif", xml(*both))) is None
    assert size_of(described(tmp_path / "other.tif", xml(image(0.16), image(0.16)))) == (0.16, 0.16)
    assert size_of(described(tmp_path / "other.tif", xml())) is None


def test_broken_headers_say_nothing(tmp_path):
    good = xml(image(0.16))
    assert size_of(described(tmp_path / "a.tif", good)) == (0.16, 0.16)
    entity = '<!DOCTYPE OME [<!ENTITY a "0.16">]>'
    for text in (good.replace("</Image>", ""), good.replace("<OME ", entity + "<OME "), good.replace("</OME>", "OME>")):
        assert read_metadata(described(tmp_path / "a.tif", text)) == ImageMetadata(), text
    # Broken XML leaves the other tags.
    broken = {"description": good.replace("</Image>", "").encode(), "metadata": None}
    assert size_of(tiff(tmp_path / "a.tif", **broken, resolution=(62500,) * 2, resolutionunit=3)) == (0.16, 0.16)
    path = ome(tmp_path / "a.tif", 0.16)
    for n in range(0, len(data := path.read_bytes()[:600]), 7):
        path.write_bytes(data[:n])
        read_metadata(path)
    for data in (b"", b"II", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1f\x8b", b"no image at all"):
        path.write_bytes(data)
        assert read_metadata(path) == ImageMetadata(), data
    assert read_metadata(tmp_path / "absent.tif") == read_metadata(tmp_path) == ImageMetadata()


def paths_of(**files):
    return {colour: str(path) for colour, path in files.items()}


def test_the_pixel_size_of_a_field(tmp_path):
    red, blue, silent = (
        ome(tmp_path / "red.tif", 0.16),
        ome(tmp_path / "blue.tif", 0.1625),
        tiff(tmp_path / "green.tif"),
    )
    assert resolve_pixel_size(0.08, paths_of(red=red)) == 0.08
    assert resolve_pixel_size(float("nan"), paths_of(green=silent, red=red, blue=blue)) == pytest.approx(0.16)
    ome(blue, 0.32)
    for paths, sentence in (
        (paths_of(red=red, blue=blue), f"{blue}: says 0.32 µm per pixel, but {red} says 0.16; give `pixel_size` in µm"),
        (paths_of(green=silent), f"{silent}: does not say its pixel size; give `pixel_size` in µm"),
        (paths_of(green=silent, red=silent), "does not say its pixel size, and neither do the other channels; give"),
        (
            paths_of(red=ome(tmp_path / "wide.tif", 0.16, 0.32)),
            f"{tmp_path}/wide.tif: says that its pixels are not square (0.16 x 0.32 µm); give `pixel_size` in µm",
        ),
    ):
        with pytest.raises(PixelSizeError) as error:
            resolve_pixel_size(float("nan"), paths)
        assert sentence in str(error.value)


def test_a_contradiction_between_configuration_and_files_is_a_warning(tmp_path):
    def check(pixel_size, paths):
        return check_pixel_size(pixel_size, paths, read_each(paths))

    red, blue, silent = ome(tmp_path / "red.tif", 0.16), ome(tmp_path / "blue.tif", 0.16), tiff(tmp_path / "green.tif")
    paths = paths_of(red=red, green=silent, blue=blue)
    assert check(0.16, paths) == check(0.1632, paths) == check(0.157, paths) == []
    assert check(0.08, paths_of(green=silent)) == []
    wrong = "write `pixel_size: file` or correct the one that is wrong"
    assert check(0.08, paths) == [f"{red} says 0.16 µm per pixel, but pixel_size is 0.08: {wrong}"]
    ome(blue, 0.32)
    expected = (
        f"{blue}: says 0.32 µm per pixel, but {red} says 0.16, and pixel_size is 0.16: correct the one that is wrong"
    )
    assert check(0.16, paths) == [expected]
    (found,) = check(0.16, paths_of(red=ome(red, 0.16, 0.32)))
    assert found.startswith(f"{red}: says that its pixels are not square (0.16 x 0.32 µm), and pixel_size is 0.16")


def write_images(folder, name, pixel_size, **said):
    """Simulate a field and write its channels as OME-TIFFs that say a pixel size; None says nothing."""
    side = round(60 / pixel_size)
    for colour, image in simulate_field(name, (0,), 3, (side, side), pixel_size, dtype="uint16").images.items():
        size = said.get(colour, pixel_size)
        sizes = {} if size is None else {"PhysicalSizeX": size, "PhysicalSizeY": size}
        tifffile.imwrite(Path(folder, f"{name}_{colour}.tif"), image, ome=True, metadata={"axes": "YX", **sizes})


def tables_of(collection, rows, pixel_size):
    """Plan, segment and tile a sheet of fields (ID,pixel_size); return its cells, its fields by name, and its files."""
    Path(f"{collection}.csv").write_text("ID,pixel_size\n" + rows)
    settings = {"sheet": f"{collection}.csv", "images": "{id}_{colour}.tif", "shards": 1, "pixel_size": pixel_size}
    config = complete({"collections": {collection: settings}, "max_rejected_fraction": 1.0})
    write_scan(scan_collection(collection, config), f"results/sheet/{collection}")
    files = CollectionFiles(collection, ("000",))
    manifest = read_manifest(files.path("manifest", "000"))
    masks = files.path("segmentation", "000")
    segment_shard(manifest, masks, SegmentationSettings(), DaskSettings(), 1, 4000, 1.0)
    cells, fields = files.path("cells", "000"), files.path("fields", "000")
    cells.parent.mkdir(parents=True)
    tiles = {colour: Path(f"{collection}_{colour}.tfrecord") for colour in COLOURS}
    tile_shard(manifest, masks, cells, fields, tiles, size=32, max_rejected_fraction=1.0)
    return pd.read_parquet(cells), pd.read_parquet(fields).set_index("field"), files


@pytest.mark.workers
def test_fields_of_two_pixel_sizes_from_their_files_to_the_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, pixel_size, said in (
        ("fine", 0.16, {}),
        ("coarse", 0.32, {"green": None}),
        ("listed", 0.16, dict.fromkeys(COLOURS, 0.4)),
        ("silent", 0.16, dict.fromkeys(COLOURS)),
        ("torn", 0.16, {"yellow": 0.32}),
    ):
        write_images(".", name, pixel_size, **said)
    cells, fields, files = tables_of("read", "fine,\ncoarse,\nlisted,0.16\nsilent,\ntorn,\n", "file")
    assert fields["status"].to_dict() == {
        **dict.fromkeys(("coarse", "fine", "listed"), "ok"), "silent": "rejected", "torn": "rejected"
    }  # fmt: skip
    assert fields.loc[["fine", "coarse", "listed"], "pixel_size"].tolist() == [0.16, 0.32, 0.16]
    assert fields.loc[["silent", "torn"], "pixel_size"].isna().all()
    assert fields.loc["silent", ["stage", "reason"]].tolist() == [
        "segment",
        "silent_red.tif: does not say its pixel size, and neither do the other channels; give `pixel_size` in µm",
    ]
    torn = "torn_yellow.tif: says 0.32 µm per pixel, but torn_red.tif says 0.16; give `pixel_size` in µm"
    assert fields.loc["torn", "reason"] == torn
    assert fields.loc[["fine", "coarse"], "warnings"].tolist() == ["", ""]
    assert fields.loc["listed", "warnings"].startswith("listed_red.tif says 0.4 µm per pixel, but pixel_size is 0.16")

    # The same as if the sheet gave every pixel size.
    cells_given, fields_given, given = tables_of("given", "fine,0.16\ncoarse,0.32\nlisted,0.16\n", 0.08)
    assert set(cells["field"]) == {"fine", "coarse", "listed"}
    pd.testing.assert_frame_equal(cells, cells_given)
    pd.testing.assert_frame_equal(fields.drop(["silent", "torn"]), fields_given, check_dtype=False)
    for name in ("fine", "coarse"):
        one, other = (mask_path(of.path("segmentation", "000"), name, "cell") for of in (files, given))
        assert one.read_bytes() == other.read_bytes()

    # Stages that read images once more take the pixel size of the tables.
    chosen = cells[cells["field"] != "listed"].groupby("field").head(1)[["field", "cell"]].reset_index(drop=True)
    measured = [
        measure_collections(chosen.assign(collection=of.name), {of.name: of}).drop(
            columns="collection", errors="ignore"
        )
        for of in (files, given)
    ]
    pd.testing.assert_frame_equal(*measured)


@pytest.mark.workers
def test_a_number_that_the_files_contradict_is_used_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(".", "right", 0.16)
    write_images(".", "wrong", 0.32)
    write_images(".", "torn", 0.16, yellow=0.2)
    _, fields, _ = tables_of("train", "right,\nwrong,\ntorn,\n", 0.16)
    assert fields["pixel_size"].tolist() == [0.16] * 3
    assert fields["status"].tolist() == ["ok"] * 3
    assert "pixel" not in fields.loc["right", "warnings"]
    sentence = (
        "wrong_red.tif says 0.32 µm per pixel, but pixel_size is 0.16: write `pixel_size: file` or correct the one"
    )
    assert sentence in fields.loc["wrong", "warnings"]
    sentence = (
        "torn_yellow.tif: says 0.2 µm per pixel, but torn_red.tif says 0.16, and pixel_size is 0.16: correct the one"
    )
    assert sentence in fields.loc["torn", "warnings"]


def test_the_figure_of_a_field_has_the_pixel_size_of_its_files(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    write_images(".", "fine", 0.16)
    write_images(".", "silent", 0.16, **dict.fromkeys(COLOURS))
    row = ManifestRow("fine", None, float("nan"), paths={colour: f"fine_{colour}.tif" for colour in COLOURS})
    silent = ManifestRow("silent", None, float("nan"), paths={colour: f"silent_{colour}.tif" for colour in COLOURS})
    drawn = {}
    for name, pixel_size in (("nan", float("nan")), ("same", 0.16), ("other", 0.32)):
        Path(name).mkdir()
        with caplog.at_level(logging.WARNING, "hpaloc"):
            draw_data([silent, replace(row, pixel_size=pixel_size)], Path(name))
        drawn[name] = Path(name, "figure3_channels.png").read_bytes()
    assert "field silent is not drawn: silent_red.tif: does not say its pixel size" in caplog.text
    assert drawn["nan"] == drawn["same"] != drawn["other"]
