"""The public XML of the Human Protein Atlas: the fields that it lists, and the sheets of those that are asked for."""

import csv
import gzip
import hashlib
import io
import os
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.parsers import expat

from hpaloc.classes import COLOURS, NAMES, NEGATIVE, format_labels
from hpaloc.files import write_if_changed, write_json
from hpaloc.location_names import read_labels
from hpaloc.progress import log, track

PARTS = ("train", "test")
COLUMNS = ("ID", "Label", "antibody", "gene", "cell_line", "reliability", *(f"url_{colour}" for colour in COLOURS))

# The images of every release are at this host, also those that a release names at its own (v18.proteinatlas.org).
_HOST = "https://images.proteinatlas.org/"
_OF_RELEASE = re.compile(r"^https?://(v\d+|www)\.proteinatlas\.org/images/")
_INSECURE = re.compile(r"^http:(?=//([\w-]+\.)*proteinatlas\.org/)")
# Folder, plate, well and number; an addition of some releases; the colours.
_IMAGE = re.compile(
    r"(?P<address>.*/[^/]+/(?P<id>[0-9]+_[A-Za-z]+[0-9]+_[0-9]+))(?:_cr[0-9a-f]+)?"
    rf"(?:_(?:{'|'.join(COLOURS)}))+(?:_selected)?\.(?:jpe?g|png|tiff?)(?:\.gz)?"
)
# The stains of other assays differ: in ciliated cell lines, red is the cilium and yellow the basal body.
_USUAL_ASSAYS = ("", "human cell lines")
_OLD_LEVELS = {"supportive": "supported"}
_UNSTAINED = ("negative", "not detected")
_IMMUNOFLUORESCENCE = ("cellExpression", "subcellularLocation")
# The needed children of these elements. The others are expression in tissues, RNA and the like.
_NEEDED = {"entry": ("name", "identifier", "antibody", *_IMMUNOFLUORESCENCE), "antibody": _IMMUNOFLUORESCENCE}


class AtlasError(ValueError):
    """XML of the atlas that cannot be read, or settings that leave no field; the message names the file or the key."""


@dataclass(frozen=True)
class AtlasSettings:
    """Which fields of the atlas are listed; the keys of the section ``atlas`` of the configuration."""

    xml: str | None = None
    version: int | None = None
    genes: Sequence[str] = ()
    cell_lines: Sequence[str] = ()
    reliability: Sequence[str] = ("enhanced", "supported", "approved")
    leave_out: Sequence[str] = ()
    per_class: int | None = None
    test_fraction: float = 0.2
    format: str = "jpg"
    seed: int = 1


class AtlasField(NamedTuple):
    """A field that the atlas lists.

    genes: those under which it is listed; an antibody against several is listed under each
    address: of its files, without ``_`` and the colour
    """

    id: str
    labels: tuple[int, ...]
    antibody: str
    genes: tuple[str, ...]
    cell_line: str
    reliability: str
    address: str


@dataclass
class Listing:
    """What was found in the XML.

    fields: by address
    left_out: {address: why} of the others
    """

    fields: dict[str, AtlasField] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    entries: int = 0
    with_fields: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    reliabilities: Counter[str] = field(default_factory=Counter)
    without_class: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    odd_names: list[str] = field(default_factory=list)
    antibodies: set[str] = field(default_factory=set)
    cell_lines: dict[str, str] = field(default_factory=dict)
    genes: set[str] = field(default_factory=set)
    several_genes: int = 0


def _letters(text: str) -> str:
    """Return a name as cell lines, genes and antibodies are compared: U-2 OS and U2OS are one."""
    return re.sub(r"[\W_]", "", text).casefold()


def _children(element: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag in names)


def _text(element: ElementTree.Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open XML, also if it is gzip'd, whatever its name; AtlasError naming the file if it is neither."""
    with open(path, "rb") as file:
        start = file.read(512)
        file.seek(0)
        text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        if start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]
            return
        if start.startswith(b"PK\x03\x04"):
            raise AtlasError(f"atlas XML {path}: is a zip file; unpack it, and name the XML in it")
        if re.match(rb"<(!doctype )?html", text):
            raise AtlasError(f"atlas XML {path}: is a web page (HTML), not the atlas's XML; fetch it again")
        if not text.startswith((b"<", "<".encode("utf-16-le"), b"\xff\xfe", b"\xfe\xff")):
            what = "is empty" if not start else f"is neither XML nor gzip (it starts with {start[:4]!r})"
            raise AtlasError(f"atlas XML {path}: {what}; fetch it again")
        yield file


class _EntryParser:
    """Makes an element of each entry, and only of the parts of it that are needed, which are a small share.

    ``xml.etree.ElementTree.iterparse`` makes an object of every element and is many times slower.
    """

    def __init__(self) -> None:
        self.entries: list[ElementTree.Element] = []
        self.root = ""
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self._builder: ElementTree.TreeBuilder | None = None
        self._path: list[str] = []
        # The element that is skipped, and how many of its name are open.
        self._skipped, self._within = "", 0
        self._watch()

    def _watch(self) -> None:
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _start(self, written: str, attributes: dict[str, str]) -> None:
        # Without the prefix of a namespace, which some releases have.
        name = written.rpartition(":")[2]
        self.root = self.root or name
        if self._builder is None:
            if name != "entry":
                return
            self._builder = ElementTree.TreeBuilder()
            self.parser.CharacterDataHandler = self._builder.data
        elif name not in _NEEDED.get(self._path[-1], (name,)):
            self._skipped, self._within = written, 1
            # Expression of RNA and in tissues is most of a file, and is never within itself.
            self.parser.StartElementHandler = None if name.endswith("Expression") else self._start_skipped
            self.parser.EndElementHandler = self._end_skipped
            self.parser.CharacterDataHandler = None
            return
        self._path.append(name)
        self._builder.start(name, attributes)

    def _end(self, name: str) -> None:
        if self._builder is None:
            return
        self._builder.end(self._path.pop())
        if not self._path:
            self.entries.append(self._builder.close())
            self._builder = None
            self.parser.CharacterDataHandler = None

    def _start_skipped(self, name: str, attributes: dict[str, str]) -> None:
        self._within += name == self._skipped

    def _end_skipped(self, name: str) -> None:
        self._within -= name == self._skipped
        if not self._within and self._builder is not None:
            self._watch()
            self.parser.CharacterDataHandler = self._builder.data


def _entries(path: Path) -> Iterator[ElementTree.Element]:
    """Yield the entries of a file; no more than a megabyte of them is in memory.

    Raises AtlasError naming the file if it is not whole, or has none.
    """
    reader, found = _EntryParser(), False
    try:
        with _opened(path) as file:
            while chunk := file.read(1 << 20):
                reader.parser.Parse(chunk, False)
                found = found or bool(reader.entries)
                yield from reader.entries
                reader.entries.clear()
            reader.parser.Parse(b"", True)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AtlasError(f"atlas XML {path}: is cut short or damaged ({error}); fetch it again") from None
    except expat.ExpatError as error:
        raise AtlasError(f"atlas XML {path}: is not whole XML ({error}); fetch it again") from None
    except OSError as error:
        raise AtlasError(f"atlas XML {path}: cannot be read ({error.strerror or error})") from None
    if not found:
        raise AtlasError(
            f"atlas XML {path}: has no entry of a gene (its first element is {reader.root}); name the atlas's XML"
        )


@lru_cache(maxsize=1 << 12)
def _read_location(name: str) -> tuple[tuple[int, ...], str, str]:
    """Return the class of a location's name, the name itself if it has no class, and the name if it is unknown."""
    try:
        # The atlas writes names; a number is none of its locations.
        if name[:1].isdigit() or "|" in name:
            raise ValueError(name)
        labels, others = read_labels(name)
    except ValueError:
        return (), "", name or "(empty)"
    return labels, "".join(others), ""


def _reliability(*elements: ElementTree.Element) -> str:
    """Return the level of the first element that has one: that of the sub-assay, of the antibody, or of the gene."""
    for element in elements:
        for verification in _children(element, "verification"):
            if level := _text(verification).casefold():
                return _OLD_LEVELS.get(level, level)
    return "none"


def _address_of(url: str) -> tuple[str, str] | None:
    """Return the ID of a field and the address of its files up to the colour, from the address of an image of it."""
    found = _IMAGE.fullmatch(_INSECURE.sub("https:", _OF_RELEASE.sub(_HOST, url)))
    return (found["id"], found["address"]) if found else None


class _Reader:
    """Reads entries into a listing."""

    def __init__(self, settings: AtlasSettings) -> None:
        self.listing = Listing()
        self._settings = settings
        self._genes, self._lines, self._left_out = (
            {_letters(name) for name in names} for names in (settings.genes, settings.cell_lines, settings.leave_out)
        )
        self._conflicts: set[str] = set()

    def read(self, path: Path) -> None:
        """Read a file; AtlasError naming it if it is damaged or of another version than the one asked for."""
        asked = self._settings.version
        for entry in _entries(path):
            self.listing.entries += 1
            version = entry.get("version", "")
            self.listing.versions[version or "not said"] += 1
            if asked is not None and version and version.split(".")[0] != str(asked):
                raise AtlasError(f"atlas XML {path}: is of version {version}, but config key atlas.version is {asked}")
            self._read_entry(entry)

    def _read_entry(self, entry: ElementTree.Element) -> None:
        gene = _text(next(_children(entry, "name"), None))
        names = {_letters(name) for name in (gene, *(one.get("id", "") for one in _children(entry, "identifier")))}
        self.listing.genes |= names & self._genes
        of_gene = [*_children(entry, *_IMMUNOFLUORESCENCE)]
        before = len(self.listing.fields) + len(self.listing.left_out)
        for antibody in _children(entry, "antibody"):
            id = antibody.get("id", "")
            self.listing.antibodies.add(_letters(id))
            for expression in _children(antibody, *_IMMUNOFLUORESCENCE):
                if "IF" not in expression.get("technology", "IF"):
                    continue
                for assay in (expression, *_children(expression, "subAssay")):
                    why = self._judge_assay(names, id, assay)
                    for data in _children(assay, "data"):
                        self._read_data(data, (assay, expression, *of_gene), id, gene, why)
        self.listing.with_fields += len(self.listing.fields) + len(self.listing.left_out) > before

    def _judge_assay(self, genes: set[str], antibody: str, assay: ElementTree.Element) -> str:
        """Return why all fields of a sub-assay are left out, empty if they are not."""
        kind, subtype = assay.get("type", "human"), assay.get("subtype", "")
        if self._genes and not genes & self._genes:
            return "another gene"
        if _letters(antibody) in self._left_out:
            return "antibody left out"
        return "" if kind == "human" and subtype in _USUAL_ASSAYS else f"assay: {subtype or kind}"

    def _read_data(
        self, data: ElementTree.Element, around: Sequence[ElementTree.Element], antibody: str, gene: str, why: str
    ) -> None:
        """Read the fields of a cell line.

        around: the sub-assay, and what is around it, from the inside to the outside
        why: they are left out, if they are
        """
        addresses: dict[str, str] = {}
        for element in data.iter("imageUrl"):
            if url := _text(element):
                if found := _address_of(url):
                    addresses[found[1]] = found[0]
                else:
                    self.listing.odd_names.append(url)
        if not addresses:
            return
        cell_line = _text(next(_children(data, "cellLine"), None))
        self.listing.cell_lines.setdefault(_letters(cell_line), cell_line)
        level = _reliability(data, *around)
        labels: tuple[int, ...] = ()
        if not why:
            why, labels = self._judge(data, cell_line, level, len(addresses))
        for address, id in addresses.items():
            self._add(AtlasField(id, labels, antibody, (gene,), cell_line, level, address), why)

    def _judge(self, data: ElementTree.Element, cell_line: str, level: str, number: int) -> tuple[str, tuple[int, ...]]:
        """Return why the fields of a cell line are left out, empty if they are not, and their labels.

        number: of these fields
        """
        if self._lines and _letters(cell_line) not in self._lines:
            return "another cell line", ()
        self.listing.reliabilities[level] += number
        # A location may have a level of its own in an attribute; the lowest counts, or its cells would lack a label.
        own = {value.casefold() for place in _children(data, "location") for value in place.attrib.values()}
        if level not in self._settings.reliability:
            return f"reliability: {level}", ()
        if lower := sorted(own & {"enhanced", "supported", "approved", "uncertain"} - set(self._settings.reliability)):
            return f"reliability: {lower[0]}", ()
        return self._read_labels(data, number)

    def _read_labels(self, data: ElementTree.Element, number: int) -> tuple[str, tuple[int, ...]]:
        """Return why fields have no label, empty if they have one, and their labels."""
        names = [_text(place) for place in _children(data, "location")]
        if not names:
            levels = {_text(level).casefold() for level in _children(data, "level")}
            return ("", (NEGATIVE,)) if levels & set(_UNSTAINED) else ("no location", ())
        labels: set[int] = set()
        for name in dict.fromkeys(names):
            known, other, unknown = _read_location(name)
            labels.update(known)
            if other:
                self.listing.without_class[other] += number
            if unknown:
                self.listing.unknown[unknown] += number
        return ("", tuple(sorted(labels))) if labels else ("no location with a class", ())

    def _add(self, new: AtlasField, why: str) -> None:
        """Add a field, which may be listed under several genes."""
        listing = self.listing
        old = listing.fields.get(new.address)
        if why or new.address in self._conflicts:
            if old is None:
                listing.left_out.setdefault(new.address, why)
            return
        if old is None:
            listing.left_out.pop(new.address, None)
            listing.fields[new.address] = new
        elif old.labels != new.labels or old.antibody != new.antibody:
            self._conflicts.add(new.address)
            del listing.fields[new.address]
            listing.left_out[new.address] = "listed with different labels or antibodies"
        elif new.genes[0] not in old.genes:
            listing.several_genes += len(old.genes) == 1
            listing.fields[new.address] = old._replace(genes=(*old.genes, *new.genes))


def read_atlas(paths: Sequence[str | os.PathLike[str]], settings: AtlasSettings) -> Listing:
    """Read the fields that the atlas lists, file by file and entry by entry.

    paths: the XML of the whole atlas, or one file per gene; each may be gzip'd
    Raises AtlasError naming the file that is damaged, is not the atlas's XML or is of another version, the files if
    they list no field, or the key of a cell line that they do not have.
    """
    reader = _Reader(settings)
    for path in track(paths, len(paths), "files of the atlas"):
        reader.read(Path(path))
    listing = reader.listing
    if not listing.cell_lines:
        raise AtlasError(
            f"atlas XML {_shortened(paths)}: lists no immunofluorescence image (cellExpression) of an antibody; "
            "name the XML of the whole atlas, or of genes that have some"
        )
    for line in settings.cell_lines:
        if _letters(line) not in listing.cell_lines:
            known = ", ".join(sorted(listing.cell_lines.values())[:40])
            raise AtlasError(f"config key atlas.cell_lines: {line!r} is not in the atlas's XML, which has {known}")
    for key, names, found in (
        ("genes", settings.genes, listing.genes),
        ("leave_out", settings.leave_out, listing.antibodies),
    ):
        if lacking := [name for name in names if _letters(name) not in found]:
            log.warning("config key atlas.%s: not in the atlas's XML: %s", key, _shortened(lacking))
    _drop_shared_ids(listing)
    return listing


def _shortened(names: Iterable[object]) -> str:
    texts = [str(name) for name in names]
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")


def _drop_shared_ids(listing: Listing) -> None:
    """Leave out the fields of several antibodies that have one plate, well and number: their ID names none of them."""
    addresses = defaultdict(list)
    for address, one in listing.fields.items():
        addresses[one.id].append(address)
    for shared in addresses.values():
        for address in shared if len(shared) > 1 else ():
            del listing.fields[address]
            listing.left_out[address] = "one ID of several antibodies"


def _order(seed: int, *names: object) -> bytes:
    """Return a random number, as bytes, that depends on a seed and on names alone."""
    return hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()


def _rarest(fields: Iterable[AtlasField], counts: Mapping[int, int]) -> int:
    return min((counts[label], label) for one in fields for label in one.labels)[1]


def _groups(fields: Sequence[AtlasField]) -> list[list[AtlasField]]:
    """Return the fields that share an antibody or a gene, directly or through others, together."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one in fields:
        for gene in one.genes:
            parent[root(f"gene {gene}")] = root(one.antibody)
    groups = defaultdict(list)
    for one in fields:
        groups[root(one.antibody)].append(one)
    return list(groups.values())


def split_fields(fields: Iterable[AtlasField], settings: AtlasSettings) -> dict[str, list[AtlasField]]:
    """Divide fields into those that train and those that test, and choose among them if there is a cap per class.

    Fields of one antibody or gene are in one part. Class by class, rarest first, ``test_fraction`` of the groups whose
    rarest class it is test, one at least if there are two. With ``per_class``, a field counts for the rarest of its
    classes; of each class, fields of one label come first, and those of many antibodies before many of one.

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
        number = max(number, int(settings.test_fraction > 0 and len(groups) > 1))
        for at, group in enumerate(groups):
            parts["test" if at < number else "train"] += group
    if settings.per_class is not None:
        testing = round(settings.per_class * settings.test_fraction)
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


def _format_sheet(fields: Iterable[AtlasField], ending: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in fields:
        urls = [f"{one.address}_{colour}.{ending}" for colour in COLOURS]
        genes = ";".join(sorted(one.genes))
        row = [one.id, format_labels(one.labels), one.antibody, genes, one.cell_line, one.reliability, *urls]
        writer.writerow(row)
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
            f"atlas XML {_shortened(paths)}: the keys of atlas leave none of its {sum(left_out.values())} fields: "
            + "; ".join(f"{why} ({number})" for why, number in _falling(left_out).items())
        )
    summary = {
        "versions": _falling(listing.versions),
        "genes": listing.entries,
        "genes_with_fields": listing.with_fields,
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
    for part in PARTS:
        write_if_changed(Path(folder, f"{part}.csv"), _format_sheet(parts[part], settings.format))
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
