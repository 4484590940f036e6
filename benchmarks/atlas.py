"""Time and memory of reading the atlas's XML.

The XML is the one that --xml names or, without it, made in the atlas's form from a list of public images (--list, a CSV
with the columns ID, Label2021, LabelFromV18, Cellline, antibody, antibody_number and gene), whose labels are then
compared with those of the sheet.
"""

import argparse
import csv
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from atlas_xml import write_atlas  # noqa: E402

from hpaloc.atlas.listing import AtlasSettings  # noqa: E402
from hpaloc.atlas.sheets import PARTS, atlas_lines, write_atlas_sheets  # noqa: E402
from hpaloc.classes import NAMES, parse_all  # noqa: E402


def compare(folder: Path, table: Path) -> None:
    """Print how many fields of a list have other labels in the sheets, by column and by the difference."""
    labels = {}
    for part in PARTS:
        with open(folder / f"{part}.csv", newline="") as file:
            labels |= {row["ID"]: row["Label"] for row in csv.DictReader(file)}
    with open(table, newline="") as file:
        known = [row for row in csv.DictReader(file) if row["ID"] in labels]
    for column in ("Label2021", "LabelFromV18"):
        own = [row for row in known if row[column]]
        pairs = zip(parse_all(labels[row["ID"]] for row in own), parse_all(row[column] for row in own), strict=True)
        differing = [(set(found), set(listed)) for found, listed in pairs if found != listed]
        changed = Counter(
            f"{'lacks' if label in listed else 'adds'} {NAMES[label]}"
            for found, listed in differing
            for label in found ^ listed
        )
        most = ", ".join(f"{what} ({number})" for what, number in changed.most_common(4))
        print(f"{column}: of {len(own)} fields, {len(differing)} have other labels{': ' + most if most else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xml", type=Path, nargs="+", help="files of the atlas's XML")
    parser.add_argument("--list", type=Path, help="a list of public images, to make XML of and to compare with")
    parser.add_argument("--bulk", type=int, default=1, help="how often each gene has ten kilobytes that are not needed")
    options = parser.parse_args()
    if not (options.xml or options.list):
        parser.error("name --xml or --list")
    with tempfile.TemporaryDirectory() as folder:
        files = options.xml or [Path(folder, "atlas.xml.gz")]
        if not options.xml:
            genes, images = write_atlas(files[0], options.list, bulk=options.bulk)
            print(f"made XML of {genes} genes and {images} images")
        start, processor = time.perf_counter(), time.process_time()
        summary = write_atlas_sheets(files, AtlasSettings(), folder)
        seconds, used = time.perf_counter() - start, time.process_time() - processor
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print("\n".join(atlas_lines(summary)))
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{size:.0f} MB of files: {seconds:.1f} s, {used:.1f} s of processor, {memory:.0f} MB of memory at most")
        if options.list:
            compare(Path(folder), options.list)


if __name__ == "__main__":
    main()
