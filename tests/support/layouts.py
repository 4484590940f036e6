"""Layouts of files that people have: how each is written, and what to write in a configuration to read it."""

import gzip
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from model_inputs import predict_shard

from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.importing import import_shard
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import read_manifest
from hpaloc.scan import scan_collection, write_scan
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.simulate.field import simulate_field
from hpaloc.tiles import tile_shard

Images = Mapping[str, np.ndarray]

# The fields of each layout: the plate, the well and the site of a field make its ID.
PLATE = "P1"
SITES = (("A01", "1"), ("B02", "2"))
IDS = tuple(f"{PLATE}_{well}_{site}" for well, site in SITES)
# The channels of a file that holds all colours, in the order in which the tests write them.
ORDER = ("blue", "yellow", "red", "green")
NAMES = {"blue": "DAPI", "yellow": "ER", "red": "Tubulin", "green": "GFP"}
BY_NUMBER = {"red": 2, "green": 3, "blue": 0, "yellow": 1}
BY_NAME = {"red": "Tubulin", "green": "GFP", "blue": "DAPI", "yellow": "ER"}


@dataclass(frozen=True)
class Layout:
    """One layout of the files of a field.

    what: its name on the page
    files: the files of one field, as on the page
    write: writes a field: folder, plate, well, site, images by colour
    collection: what the configuration says of the collection besides the sheet
    dtype: of the pixels
    colours: those that the files hold
    sheet: whether the configuration names a sheet; without one the fields are what the pattern finds
    needs: packages without which the test of the layout is skipped
    ids: of its fields
    """

    what: str
    files: str
    write: Callable[[Path, str, str, str, Images], Any]
    collection: Mapping[str, Any]
    dtype: str = "uint16"
    colours: Sequence[str] = COLOURS
    sheet: bool = True
    needs: Sequence[str] = ()
    ids: Sequence[str] = IDS


@cache
def field_images(dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the pixels of the fields, {ID: {colour: (384, 384)}}; those of 16 bits fill 12."""
    found = {}
    for seed, id in enumerate(IDS):
        images = simulate_field(id, (0,), seed, (384, 384), pixel_size=0.16, density=2.0).images
        found[id] = {c: image if dtype == "uint8" else image.astype(np.uint16) * 16 for c, image in images.items()}
    return found


def _joined(images: Images, colours: Sequence[str] = ORDER) -> np.ndarray:
    return np.stack([images[colour] for colour in colours])


def _four_files(folder, plate, well, site, images, suffix=".png", **options):
    for colour, image in images.items():
        path = folder / f"{plate}_{well}_{site}_{colour}{suffix}"
        if suffix == ".png":
            cv2.imwrite(str(path), image)
        elif suffix == ".tif.gz":
            tifffile.imwrite(path.with_suffix(""), image)
            path.write_bytes(gzip.compress(path.with_suffix("").read_bytes(), 1))
            path.with_suffix("").unlink()
        else:
            tifffile.imwrite(path, image, **options)


def _tinted_files(folder, plate, well, site, images):
    for colour, channels in (("red", (2,)), ("green", (1,)), ("blue", (0,)), ("yellow", (1, 2))):
        tinted = np.zeros((*images[colour].shape, 3), np.uint8)
        tinted[..., channels] = images[colour][..., None]
        cv2.imwrite(str(folder / f"{plate}_{well}_{site}_{colour}.png"), tinted)


def _one_tiff(folder, plate, well, site, images, make=_joined, suffix=".tif", **options):
    options = {"photometric": "minisblack", **options}
    path = folder / f"{plate}_{well}_{site}{suffix}"
    tifffile.imwrite(path, make(images), **options)
    return path


def _gzipped(folder, plate, well, site, images):
    path = _one_tiff(folder, plate, well, site, images, metadata={"axes": "CYX"})
    path.with_suffix(".tif.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()


def _ome(axes, **metadata):
    return {"ome": True, "metadata": {"axes": axes, "Channel": {"Name": [NAMES[c] for c in ORDER]}, **metadata}}


def _imagej(axes, planes):
    labels = [NAMES[colour] for colour in ORDER] * planes
    return {"imagej": True, "metadata": {"axes": axes, "Labels": labels}, "photometric": None}


def _stacked(images, planes=7):
    """Return (Z, C, Y, X) planes of which the brightest of each pixel is that of the field."""
    own = _joined(images)
    stack = np.stack([own // (2 + number) for number in range(planes)])
    stack[planes // 2] = own
    return stack


def _timed(images):
    own = _joined(images)
    return np.stack([own // 3, own, own // 2])


def _interleaved(images, colours=ORDER):
    return np.moveaxis(_joined(images, colours), 0, 2)


def _pyramid(folder, plate, well, site, images):
    own = _joined(images)
    with tifffile.TiffWriter(folder / f"{plate}_{well}_{site}.ome.tif", ome=True) as file:
        options = {"tile": (128, 128), "compression": "deflate", "photometric": "minisblack"}
        file.write(own, subifds=2, **options, metadata=_ome("CYX")["metadata"])
        for step in (2, 4):
            file.write(own[:, ::step, ::step], subfiletype=1, **options)


def _two_series(folder, plate, well, site, images):
    own = _joined(images)
    with tifffile.TiffWriter(folder / f"{plate}_{well}_{site}.ome.tif", ome=True) as file:
        for pixels in (own[:, ::4, ::4], own):
            file.write(pixels, photometric="minisblack", metadata=_ome("CYX")["metadata"])


def _zarr(folder, plate, well, site, images, version="0.5", zipped=False):
    import zarr

    name = f"{plate}_{well}_{site}.ome.zarr"
    store = zarr.storage.ZipStore(folder / f"{name}.zip", mode="w") if zipped else folder / name
    group = zarr.open_group(store, mode="w", zarr_format=3 if version == "0.5" else 2)
    own = _joined(images)
    for level, step in enumerate((1, 2, 4)):
        pixels = own[:, ::step, ::step]
        group.create_array(str(level), shape=pixels.shape, chunks=(1, 128, 128), dtype=pixels.dtype)[:] = pixels
    scales = [[1.0, 0.16 * step, 0.16 * step] for step in (1, 2, 4)]
    levels = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level, scale in enumerate(scales)
    ]
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    attributes = {
        "multiscales": [{"version": version, "axes": axes, "datasets": levels}],
        "omero": {"channels": [{"label": NAMES[colour]} for colour in ORDER]},
    }
    group.attrs.update({"ome": {"version": version, **attributes}} if version == "0.5" else attributes)
    if zipped:
        store.close()


def _rgba_png(folder, plate, well, site, images):
    # OpenCV writes blue, green, red and alpha.
    samples = [images[colour] for colour in ("blue", "green", "red", "yellow")]
    cv2.imwrite(str(folder / f"{plate}_{well}_{site}.png"), np.dstack(samples))


# Channels by the numbers that microscopes give them.
_AS_RECORDED = {"blue": 1, "green": 2, "red": 3, "yellow": 4}


def _named_files(folder, plate, well, site, images, name, stack=None):
    """Write a TIFF for each colour, ``name`` with the values of its parts, and for each plane along z of a stack."""
    row, column = ord(well[0]) - 64, int(well[1:])
    for colour, image in images.items():
        planes = enumerate(stack(image), 1) if stack else [(1, image)]
        for z, plane in planes:
            values = {"plate": plate, "well": well, "site": int(site), "channel": _AS_RECORDED[colour], "z": z}
            path = folder / name.format(colour=colour, row=row, column=column, **values)
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, plane)


def _with_guids(folder, plate, well, site, images):
    for colour, image in images.items():
        name = f"{plate}_{well}_s{site}_w{_AS_RECORDED[colour]}"
        guid = str(uuid.uuid5(uuid.NAMESPACE_OID, name)).upper()
        tifffile.imwrite(folder / f"{name}{guid}.tif", image)
        # Thumbnails are in the same folder.
        tifffile.imwrite(folder / f"{name}_thumb{guid}.tif", image[::8, ::8])


def _planes_of(image):
    """Return seven planes of which the brightest of each pixel is that of the image."""
    return [*(image // (2 + number) for number in range(3)), image, *(image // (5 + number) for number in range(3))]


def _stacked_files(folder, plate, well, site, images, name):
    _named_files(folder, plate, well, site, {c: np.stack(_planes_of(image)) for c, image in images.items()}, name)


def _in_folders(folder, plate, well, site, images):
    into = folder / plate / well
    into.mkdir(parents=True)
    tifffile.imwrite(into / f"{site}.ome.tif", _joined(images), photometric="minisblack", **_ome("CYX"))


def _two_files(folder, plate, well, site, images):
    rgb = _interleaved(images, ("red", "green", "blue"))
    cv2.imwrite(str(folder / f"{plate}_{well}_{site}.png"), rgb[..., ::-1])
    cv2.imwrite(str(folder / f"{plate}_{well}_{site}_er.png"), images["yellow"])


def _rgb_png(folder, plate, well, site, images):
    cv2.imwrite(str(folder / f"{plate}_{well}_{site}.png"), _interleaved(images, ("red", "green", "blue"))[..., ::-1])


def _of_microscope(folder, plate, well, site, images, kind):
    import vendor_files

    path = folder / f"{plate}_{well}_{site}.{kind}"
    getattr(vendor_files, f"write_{kind}")(path, [_joined(images)[None, None]], [NAMES[colour] for colour in ORDER])


_ID = "{root}/{id}"
_RECORDED = {"channels": _AS_RECORDED}
_NUMBERED = {"channels": BY_NUMBER}
_NAMED = {"channels": BY_NAME}
LAYOUTS = [
    Layout("a PNG a colour, 8 bit", "P1_A01_1_red.png …", _four_files, {"images": f"{_ID}_{{colour}}.png"}, "uint8"),
    Layout("a PNG a colour, 16 bit", "P1_A01_1_red.png …", _four_files, {"images": f"{_ID}_{{colour}}.png"}),
    Layout(
        "a TIFF a colour, LZW",
        "P1_A01_1_red.tif …",
        partial(_four_files, suffix=".tif", compression="lzw"),
        {"images": f"{_ID}_{{colour}}.tif"},
    ),
    Layout(
        "a gzip'd TIFF a colour",
        "P1_A01_1_red.tif.gz …",
        partial(_four_files, suffix=".tif.gz"),
        {"images": f"{_ID}_{{colour}}.tif.gz"},
    ),
    Layout(
        "an RGB file a colour, tinted as the atlas tints it",
        "P1_A01_1_red.png …",
        _tinted_files,
        {"images": f"{_ID}_{{colour}}.png"},
        "uint8",
    ),
    Layout(
        "ImageJ hyperstack of four channels",
        "P1_A01_1.tif",
        partial(_one_tiff, **_imagej("CYX", 1)),
        {"images": f"{_ID}.tif", **_NAMED},
    ),
    Layout(
        "ImageJ hyperstack of seven planes along z",
        "P1_A01_1.tif",
        partial(_one_tiff, make=_stacked, **_imagej("ZCYX", 7)),
        {"images": f"{_ID}.tif", **_NAMED, "project": "max"},
    ),
    Layout(
        "ImageJ hyperstack of three time points",
        "P1_A01_1.tif",
        partial(_one_tiff, make=_timed, **_imagej("TCYX", 3)),
        {"images": f"{_ID}.tif", **_NUMBERED, "time": 1},
    ),
    Layout(
        "OME-TIFF, channels by name",
        "P1_A01_1.ome.tif",
        partial(_one_tiff, suffix=".ome.tif", **_ome("CYX")),
        {"images": f"{_ID}.ome.tif", **_NAMED},
    ),
    Layout(
        "OME-TIFF, Deflate, big-endian",
        "P1_A01_1.ome.tif",
        partial(_one_tiff, suffix=".ome.tif", compression="zlib", byteorder=">", **_ome("CYX")),
        {"images": f"{_ID}.ome.tif", **_NUMBERED},
    ),
    Layout("OME-TIFF with a pyramid, tiled", "P1_A01_1.ome.tif", _pyramid, {"images": f"{_ID}.ome.tif", **_NAMED}),
    Layout(
        "OME-TIFF, one plane of a z stack",
        "P1_A01_1.ome.tif",
        partial(_one_tiff, make=_stacked, suffix=".ome.tif", **_ome("ZCYX")),
        {"images": f"{_ID}.ome.tif", **_NAMED, "project": 3},
    ),
    Layout(
        "OME-TIFF of several series",
        "P1_A01_1.ome.tif",
        _two_series,
        {"images": f"{_ID}.ome.tif", **_NAMED, "series": 1},
    ),
    Layout(
        "BigTIFF", "P1_A01_1.tif", partial(_one_tiff, bigtiff=True, **_ome("CYX")), {"images": f"{_ID}.tif", **_NAMED}
    ),
    Layout(
        "TIFF, a page a channel, without names",
        "P1_A01_1.tif",
        partial(_one_tiff, metadata=None),
        {"images": f"{_ID}.tif", **_NUMBERED},
    ),
    Layout(
        "TIFF, samples interleaved",
        "P1_A01_1.tif",
        partial(_one_tiff, make=_interleaved, metadata=None, planarconfig="contig"),
        {"images": f"{_ID}.tif", **_NUMBERED},
    ),
    Layout(
        "TIFF, samples in planes",
        "P1_A01_1.tif",
        partial(_one_tiff, metadata=None, planarconfig="separate"),
        {"images": f"{_ID}.tif", **_NUMBERED},
    ),
    Layout("gzip'd TIFF of four channels", "P1_A01_1.tif.gz", _gzipped, {"images": f"{_ID}.tif.gz", **_NUMBERED}),
    Layout(
        "PNG of four samples",
        "P1_A01_1.png",
        _rgba_png,
        {"images": f"{_ID}.png", "channels": {"red": 0, "green": 1, "blue": 2, "yellow": 3}},
        "uint8",
    ),
    Layout(
        "OME-Zarr 0.4",
        "P1_A01_1.ome.zarr",
        partial(_zarr, version="0.4"),
        {"images": f"{_ID}.ome.zarr", **_NAMED},
    ),
    Layout("OME-Zarr 0.5", "P1_A01_1.ome.zarr", _zarr, {"images": f"{_ID}.ome.zarr", **_NAMED}),
    Layout(
        "OME-Zarr 0.4, zip",
        "P1_A01_1.ome.zarr.zip",
        partial(_zarr, version="0.4", zipped=True),
        {"images": f"{_ID}.ome.zarr.zip", **_NAMED},
    ),
    Layout(
        "OME-Zarr 0.5, zip",
        "P1_A01_1.ome.zarr.zip",
        partial(_zarr, zipped=True),
        {"images": f"{_ID}.ome.zarr.zip", **_NUMBERED},
    ),
    Layout(
        "MetaXpress, a TIFF a wavelength",
        "P1_A01_s1_w1.TIF …",
        partial(_named_files, name="{plate}_{well}_s{site}_w{channel}.TIF"),
        {"images": "{root}/{plate}_{well}_s{site}_w{channel}.TIF", **_RECORDED},
        sheet=False,
    ),
    Layout(
        "MetaXpress with GUIDs and thumbnails",
        "P1_A01_s1_w1F0E1….tif …",
        _with_guids,
        {"images": "{root}/{plate}_{well}_s{site}_w{channel}[0-9A-F]*.tif", **_RECORDED},
        sheet=False,
    ),
    Layout(
        "ImageXpress, folders of time points and of planes along z",
        "P1/TimePoint_1/ZStep_1/P1_A01_s1_w1.TIF …",
        partial(
            _named_files,
            name="{plate}/TimePoint_1/ZStep_{z}/{plate}_{well}_s{site}_w{channel}.TIF",
            stack=_planes_of,
        ),
        {
            "images": "{root}/{plate}/TimePoint_{time}/ZStep_{z}/{plate}_{well}_s{site}_w{channel}.TIF",
            **_RECORDED,
            "time": 1,
            "project": 4,
        },
        sheet=False,
    ),
    Layout(
        "ImageXpress, folders of planes along z, joined",
        "P1/TimePoint_1/ZStep_1/P1_A01_s1_w1.TIF …",
        partial(
            _named_files,
            name="{plate}/TimePoint_1/ZStep_{z}/{plate}_{well}_s{site}_w{channel}.TIF",
            stack=_planes_of,
        ),
        {
            "images": "{root}/{plate}/TimePoint_1/ZStep_{z}/{plate}_{well}_s{site}_w{channel}.TIF",
            **_RECORDED,
            "project": "max",
        },
        sheet=False,
    ),
    Layout(
        "MetaXpress, a stack a wavelength",
        "P1_A01_s1_w1.TIF …",
        partial(_stacked_files, name="{plate}_{well}_s{site}_w{channel}.TIF"),
        {"images": "{root}/{plate}_{well}_s{site}_w{channel}.TIF", **_RECORDED, "project": "max"},
        sheet=False,
    ),
    Layout(
        "Operetta and Opera Phenix (Harmony)",
        "P1__2024-05-02/Images/r01c01f01p01-ch1sk1fk1fl1.tiff …",
        partial(
            _named_files,
            name="{plate}__2024-05-02/Images/r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff",
        ),
        {"images": "{root}/{plate}__*/Images/r{row}c{column}f{site}p01-ch{channel}sk1fk1fl1.tiff", **_RECORDED},
        sheet=False,
        ids=("P1_01_01_01", "P1_02_02_02"),
    ),
    Layout(
        "CellVoyager (Yokogawa)",
        "P1_A01_T0001F001L01A01Z01C01.tif …",
        partial(_named_files, name="{plate}_{well}_T0001F{site:03d}L01A0{channel}Z01C{channel:02d}.tif"),
        {"images": "{root}/{plate}_{well}_T0001F{site}L01A*Z01C{channel}.tif", **_RECORDED},
        sheet=False,
        ids=("P1_A01_001", "P1_B02_002"),
    ),
    Layout(
        "Zeiss and Leica, exported by channel",
        "P1/A01_1_ch01.tif …",
        partial(_named_files, name="{plate}/{well}_{site}_ch{channel:02d}.tif"),
        {"images": "{root}/{plate}/{well}_{site}_ch{channel}.tif", **_RECORDED},
        sheet=False,
    ),
    Layout(
        "a folder a plate and a well, an OME-TIFF a site",
        "P1/A01/1.ome.tif",
        _in_folders,
        {"images": "{root}/{plate}/{well}/{site}.ome.tif", **_NAMED},
        sheet=False,
    ),
    Layout(
        "OME-TIFF without a sheet",
        "P1_A01_1.ome.tif",
        partial(_one_tiff, suffix=".ome.tif", **_ome("CYX")),
        {"images": f"{_ID}.ome.tif", **_NAMED},
        sheet=False,
    ),
    Layout(
        "an RGB file, and one of the fourth colour",
        "P1_A01_1.png, P1_A01_1_er.png",
        _two_files,
        {
            "images": {**dict.fromkeys(("red", "green", "blue"), f"{_ID}.png"), "yellow": f"{_ID}_er.png"},
            "channels": {"red": 0, "green": 1, "blue": 2},
        },
        "uint8",
    ),
    Layout(
        "RGB of three colours",
        "P1_A01_1.png",
        _rgb_png,
        {"images": f"{_ID}.png", "channels": {"red": 0, "green": 1, "blue": 2, "yellow": None}},
        "uint8",
        ("red", "green", "blue"),
    ),
    Layout(
        "a TIFF a colour, without endoplasmic reticulum",
        "P1_A01_1_red.tif …",
        partial(_four_files, suffix=".tif"),
        {"images": f"{_ID}_{{colour}}.tif", "channels": {"yellow": None}},
        colours=("red", "green", "blue"),
    ),
    Layout(
        "a TIFF a colour, without microtubules",
        "P1_A01_1_yellow.tif …",
        partial(_four_files, suffix=".tif"),
        {"images": f"{_ID}_{{colour}}.tif", "channels": {"red": None}},
        colours=("green", "blue", "yellow"),
    ),
    Layout(
        "ImageJ hyperstack of two colours",
        "P1_A01_1.tif",
        partial(_one_tiff, make=partial(_joined, colours=("green", "blue")), imagej=True, metadata={"axes": "CYX"}),
        {"images": f"{_ID}.tif", "channels": {"red": None, "green": 0, "blue": 1, "yellow": None}},
        colours=("green", "blue"),
    ),
    *(
        Layout(
            f"{kind.upper()} of {maker}",
            f"P1_A01_1.{kind}",
            partial(_of_microscope, kind=kind),
            {"images": f"{_ID}.{kind}", **_NAMED},
            needs=("bioio", f"bioio_{kind}", *writers),
        )
        for kind, maker, writers in (("czi", "Zeiss", ("pylibCZIrw",)), ("lif", "Leica", ()), ("nd2", "Nikon", ()))
    ),
]


def as_png_files(layout: Layout) -> Layout:
    """Return the layout of the same pixels, IDs and colours in one PNG for each colour."""

    def write(folder, plate, well, site, images):
        id = layout.ids[IDS.index(f"{plate}_{well}_{site}")]
        for colour, image in images.items():
            cv2.imwrite(str(folder / f"{id}_{colour}.png"), image)

    lacking = [colour for colour in COLOURS if colour not in layout.colours]
    collection = {"images": f"{_ID}_{{colour}}.png"} | ({"channels": dict.fromkeys(lacking)} if lacking else {})
    return Layout("", "", write, collection, layout.dtype, layout.colours, ids=layout.ids)


def write_layout(layout: Layout, folder: Path) -> None:
    """Write the fields of a layout into ``folder``/images, and a sheet beside it if the layout has one."""
    into = folder / "images"
    into.mkdir(parents=True)
    for (well, site), id in zip(SITES, IDS, strict=True):
        images = {colour: field_images(layout.dtype)[id][colour] for colour in layout.colours}
        layout.write(into, PLATE, well, site, images)
    if layout.sheet:
        (folder / "sheet.csv").write_text("\n".join(["ID", *layout.ids]))


def run_layout(layout: Layout, folder: Path, model: Path) -> dict[str, bytes]:
    """Write, plan, segment, tile and predict the fields of a layout; return the content of what was made, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    write_layout(layout, folder)
    with chdir(folder):
        collection = {**layout.collection, "root": "images", "shards": 1, "pixel_size": 0.16}
        collection |= {"sheet": "sheet.csv"} if layout.sheet else {}
        # A configuration is text before it is read.
        config = complete(json.loads(json.dumps({"collections": {"some": collection}})))
        write_scan(scan_collection("some", config), "results/sheet/some")
        rows = read_manifest("results/sheet/some/000.csv")
        if layout.needs:
            into = CollectionFiles("some").path("imported", "000")
            into.mkdir(parents=True)
            import_shard("results/sheet/some/000.csv", into, memory_mb=2000, max_rejected_fraction=0.0)
        Path("made").mkdir()
        masks, cells = Path("made/segmentation"), Path("made/cells.parquet")
        tiles = {colour: Path(f"made/{colour}.tfrecord") for colour in COLOURS}
        segment_shard(rows, masks, SegmentationSettings(**config["segmentation"]), DaskSettings(), 1, 2000, 0.0)
        tile_shard(rows, masks, cells, "made/fields.parquet", tiles, size=64, threads=1)
        predict_shard(model, tiles, cells, Path("made/predictions.parquet"), views=1)
        return {str(path): path.read_bytes() for path in sorted(Path("made").rglob("*")) if path.is_file()}
