"""The sheets of the fields of the atlas that are asked for: two parts, a choice of each class, the counts of it all."""

import csv
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpaloc.atlas.entries import AtlasError
from hpaloc.atlas.listing import AtlasField, AtlasSettings, read_atlas, shortened
from hpaloc.classes import COLOURS, NAMES, format_labels
from hpaloc.files import write_if_changed, write_json
from hpaloc.linking import linked_groups

PARTS = ("train", "test")
COLUMNS = (
    *("ID", "Label", "antibody", "gene", "gene_group", "cell_line", "reliability"),
    *(f"url_{colour}" for colour in COLOURS),
)


def _order(seed: int, *names: object) -> bytes:
    """Return a random number, as bytes, that depends on a seed and on names alone."""
    return hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()


def _rarest(fields: Iterable[AtlasField], counts: Mapping[int, int]) -> int:
    return min((counts[label], label) for one in fields for label in one.labels)[1]


def _groups(fields: Sequence[AtlasField]) -> list[list[AtlasField]]:
    """Return the fields that share an antibody or a gene, directly or through others, together."""
    keys = ([("antibody", one.antibody), *(("gene", gene) for gene in one.genes)] for one in fields)
    return [[fields[number] for number in group] for group in linked_groups(keys)]


def name_groups(fields: Iterable[AtlasField]) -> dict[str, str]:
    """Name the groups of fields that share an antibody or a gene, directly or through others, each after a gene of it.

    Returns {address: the first of the group's genes in the order of letters, or of its antibodies if it has no gene}.
    """
    named: dict[str, str] = {}
    for group in _groups(list(fields)):
        name = min((gene for one in group for gene in one.genes if gene), default=min(one.antibody for one in group))
        named.update((one.address, name) for one in group)
    return named


def split_fields(fields: Iterable[AtlasField], settings: AtlasSettings) -> dict[str, list[AtlasField]]:
    """Divide fields into those that train and those that test, and choose among them if there is a cap per class.

    Fields of one antibody or gene are in one part. Class by class, rarest first, ``test_fraction`` of the groups whose
    rarest class it is test; unless it is 0, each part has at least one of two groups or more. With ``per_class``, a
    field counts for the rarest of its classes; of each class, fields of one label come first, and those of many
    antibodies before many of one. Unless ``test_fraction`` is 0, each part has at least 1 of a cap of 2 or more.

    Returns {part: its fields, sorted by ID}.
    """
    given = sorted(fields)
    counts = Counter(label for one in given for label in one.labels)
    of_class = defaultdict(list)
    for group in _groups(given):
        of_class[_rarest(group, counts)].append(group)
    parts: dict[str, list[AtlasField]] = {part: [] for part in PARTS}
    for groups in of_class.values():
        groups.sort(key=lambda group: _order(settings.seed, min(one.antibody for one in group)))
        number = round(settings.test_fraction * len(groups))
        if settings.test_fraction > 0 and len(groups) > 1:
            number = min(max(number, 1), len(groups) - 1)
        for at, group in enumerate(groups):
            parts["test" if at < number else "train"] += group
    if settings.per_class is not None:
        testing = round(settings.per_class * settings.test_fraction)
        if settings.per_class > 1 and settings.test_fraction > 0:
            # Neither part is empty.
            testing = min(max(testing, 1), settings.per_class - 1)
        caps = {"train": settings.per_class - testing, "test": testing}
        parts = {part: _cap(parts[part], caps[part], counts, settings.seed) for part in PARTS}
    return {part: sorted(parts[part]) for part in PARTS}


def _cap(fields: Sequence[AtlasField], cap: int, counts: Mapping[int, int], seed: int) -> list[AtlasField]:
    """Choose at most ``cap`` of the fields of each class; see ``split_fields``."""
    of_class = defaultdict(list)
    for one in sorted(fields, key=lambda one: _order(seed, one.address)):
        of_class[_rarest([one], counts)].append(one)
    chosen = []
    for own in of_class.values():
        seen: Counter[tuple[str, bool]] = Counter()
        ranked = []
        for at, one in enumerate(own):
            several = len(one.labels) > 1
            ranked.append((several, seen[one.antibody, several], at))
            seen[one.antibody, several] += 1
        chosen += [own[at] for _, _, at in sorted(ranked)[:cap]]
    return chosen


def _format_sheet(fields: Iterable[AtlasField], groups: Mapping[str, str], ending: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in fields:
        urls = [f"{one.address}_{colour}.{ending}" for colour in COLOURS]
        genes = ";".join(sorted(one.genes))
        of_what = [one.antibody, genes, groups[one.address], one.cell_line, one.reliability]
        writer.writerow([one.id, format_labels(one.labels), *of_what, *urls])
    return text.getvalue()


def _counts(fields: Sequence[AtlasField]) -> dict[str, Any]:
    """Return the numbers of fields, antibodies and genes, in all and per class."""
    labels = Counter(label for one in fields for label in one.labels)
    only = Counter(one.labels[0] for one in fields if len(one.labels) == 1)
    antibodies = Counter(label for label, _ in {(label, one.antibody) for one in fields for label in one.labels})
    return {
        "fields": len(fields),
        "antibodies": len({one.antibody for one in fields}),
        "genes": len({gene for one in fields for gene in one.genes}),
        "classes": {
            name: {"fields": labels[at], "only_label": only[at], "antibodies": antibodies[at]}
            for at, name in enumerate(NAMES)
        },
    }


def _falling(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def write_atlas_sheets(
    paths: Sequence[str | os.PathLike[str]], settings: AtlasSettings, folder: str | os.PathLike[str]
) -> dict[str, Any]:
    """Write the sheets of the parts of the atlas, and the counts of everything, into ``folder``.

    The same XML and settings give the same bytes. Every field that the XML lists is in a sheet, or among those left out
    with a reason.

    paths: as in ``read_atlas``
    Returns the counts, the content of ``summary.json``.
    Raises AtlasError as ``read_atlas`` does, and if no field is left.
    """
    listing = read_atlas(paths, settings)
    parts = split_fields(listing.fields.values(), settings)
    left_out = Counter(listing.left_out.values())
    chosen = sum(map(len, parts.values()))
    if len(listing.fields) > chosen:
        left_out["more than atlas.per_class"] = len(listing.fields) - chosen
    if not chosen:
        raise AtlasError(
            f"atlas XML {shortened(paths)}: the keys of atlas leave none of its {sum(left_out.values())} fields: "
            + "; ".join(f"{why} ({number})" for why, number in _falling(left_out).items())
        )
    summary = {
        "versions": _falling(listing.versions),
        "genes": listing.entries,
        "fields": len(listing.fields) + len(listing.left_out),
        "fields_of_several_genes": listing.several_genes,
        "reliability": _falling(listing.reliabilities),
        "left_out": _falling(left_out),
        "locations_without_class": _falling(listing.without_class),
        "unknown_locations": _falling(listing.unknown),
        "images_of_other_names": len(listing.odd_names),
        "first_of_other_names": listing.odd_names[:5],
        **{part: _counts(parts[part]) for part in PARTS},
    }
    # Of all that are listed: the fields that link two genes may be beyond atlas.per_class.
    groups = name_groups(listing.fields.values())
    for part in PARTS:
        write_if_changed(Path(folder, f"{part}.csv"), _format_sheet(parts[part], groups, settings.format))
    write_json(Path(folder, "summary.json"), summary)
    return summary


def atlas_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the counts of ``write_atlas_sheets`` as lines for people."""

    def listed(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name} ({number})" for name, number in counts.items()) or "none"

    lines = [
        f"atlas: {summary['genes']} genes, {summary['fields']} fields; version {listed(summary['versions'])}",
        f"atlas: left out: {listed(summary['left_out'])}",
        f"atlas: names of locations without a class: {listed(summary['locations_without_class'])}",
        f"atlas: unknown names of locations: {listed(summary['unknown_locations'])}",
    ]
    if number := summary["images_of_other_names"]:
        lines.append(f"atlas: images whose names are not plate_well_number_colours: {number}, such as "
                     f"{summary['first_of_other_names'][0]}")  # fmt: skip
    for part in PARTS:
        own = summary[part]
        lines.append(f"atlas: {part}: {own['fields']} fields, {own['antibodies']} antibodies, {own['genes']} genes")
    return lines
