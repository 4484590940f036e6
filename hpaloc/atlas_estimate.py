"""What the fields of the atlas need before they are fetched: disk, hours of download, hours of processors."""

from collections.abc import Mapping, Sequence
from typing import Any

from hpaloc.atlas.sheets import PARTS
from hpaloc.classes import NAMES

# The mean area of a field in megapixels: of the 21,806 fields of the competition of 2021, most are 2048 x 2048 px, and
# a fifth 3072 x 3072.
_MEGAPIXELS = 5.1
# Megabytes of one image. Measured on the four JPEGs of a public field (0.049 bytes per px); of gzip'd TIFF, what two
# bytes per px shrink to is taken as half.
_MEGABYTES = {"jpg": 0.049 * _MEGAPIXELS, "tif.gz": 1.0 * _MEGAPIXELS}
# The rates of docs/cluster.md and docs/model.md: per field or cell, on one core or two.
_CELLS = 21.7
_TILE_MEGABYTES = 0.1
_SEGMENT_SECONDS, _TILE_SECONDS = 60 / 138, 0.28
# In float32; a CPU that computes in bfloat16 takes six tenths of the time.
_TRAINED_PER_SECOND, _PREDICTED_PER_SECOND = 7.8, 27.3


def _disk(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"


def _table(summary: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    """Return the fields, those of one label, and the antibodies of each class, part by part."""
    width = max(map(len, NAMES))
    lines = [f"{'class':{width}}" + "".join(f"{part:>10}{'one label':>11}{'antibodies':>12}" for part in parts)]
    for name in NAMES:
        row = (summary[part]["classes"][name] for part in parts)
        cells = (f"{own['fields']:>10}{own['only_label']:>11}{own['antibodies']:>12}" for own in row)
        lines.append(f"{name:{width}}" + "".join(cells))
    return lines


def estimate_lines(config: Mapping[str, Any], summary: Mapping[str, Any], n_colours: Mapping[str, int]) -> list[str]:
    """Return the estimate as lines for people: fields per class, disk, hours of download and of computation.

    config: the completed configuration
    summary: of ``atlas.sheets.write_atlas_sheets``
    n_colours: the number of images of a field of each collection
    """
    used = {name: own for name, own in config["collections"].items() if "atlas" in own}
    fields = {name: summary[own["atlas"]]["fields"] for name, own in used.items()}
    lines = ["", *_table(summary, [part for part in PARTS if part in {own["atlas"] for own in used.values()}]), ""]
    for name, number in fields.items():
        lines.append(f"{name}: {number} fields of {summary[used[name]['atlas']]['antibodies']} antibodies")

    kind = config["atlas"]["format"]
    images = {name: fields[name] * n_colours[name] for name, own in used.items() if "download" in own}
    number = sum(images.values())
    hours = sum(count / used[name]["download"]["per_second"] for name, count in images.items()) / 3600
    lines += [
        f"images to download ({kind}): {number}, about {_disk(number * _MEGABYTES[kind])}",
        f"download at the polite rate (download.per_second): at least {_time(hours)}",
        "images that are already in resources/downloaded are not fetched again, unless other settings (shards, seed,",
        "test_fraction) put them into another part or shard",
    ]

    total = sum(fields.values())
    trains = 0 if config["model"]["path"] else fields.get(config["train"]["collection"], 0)
    hours = total * (_SEGMENT_SECONDS + _TILE_SECONDS) / 3600
    # Of one-label fields, about half of the cells of a collection train.
    records = trains * (0.5 if config["curation"]["labels"] == "single" else 1)
    lines += [
        f"tiles and training records: about {_disk((total + records) * _CELLS * _TILE_MEGABYTES)}",
        f"segmentation (watershed) and tiling: about {_time(hours)} on one core",
    ]
    if trains:
        cells, train = round(trains * _CELLS), config["train"]
        hours = cells * train["epochs"] / _TRAINED_PER_SECOND / 3600
        decoded = cells * train["input_size"] ** 2 * len(train["channels"]) / 1e6
        lines += [
            f"training, {train['epochs']} epochs of at most {cells} cells: about {_time(hours)} on two cores; a GPU "
            "takes a fraction of it",
            f"their decoded tiles, in memory or in the folder train.cache while it trains: about {_disk(decoded)}",
        ]
        if config["curation"]["oversample"]:
            lines.append("copies of rare locations (curation.oversample) add to the last two and to the records")
    views = config["predict"]["views"]
    predicted = sum(fields.get(name, 0) for name in config["predict"]["collections"]) * _CELLS
    hours = predicted * views / _PREDICTED_PER_SECOND / 3600
    return [*lines, f"prediction, {views} views: about {_time(hours)} on two cores"]
