"""The fields that the public XML of the Human Protein Atlas lists, and why others are left out."""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hpaloc.atlas.entries import IMMUNOFLUORESCENCE, AtlasError, entries
from hpaloc.classes import COLOURS, NEGATIVE
from hpaloc.location_names import read_labels
from hpaloc.progress import log, track

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
# Names of levels before release 18.
_OLD_LEVELS = {"supportive": "supported", "validated": "enhanced"}
_UNSTAINED = ("negative", "not detected")
# Why a listing is left out that contradicts no other one of its field; the other reasons are about the image itself.
_NOT_ASKED_FOR = ("another gene", "another cell line", "antibody left out", "reliability")


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


def _level(text: str) -> str:
    """Return a level of reliability by its present name."""
    level = text.strip().casefold()
    return _OLD_LEVELS.get(level, level)


def _reliability(*elements: ElementTree.Element) -> str:
    """Return the level of the first element that has one: that of the sub-assay, of the antibody, or of the gene."""
    for element in elements:
        for verification in _children(element, "verification"):
            if level := _level(_text(verification)):
                return level
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
        # The listings of each address, and why they are left out: a field may be listed under several genes.
        self._found: defaultdict[str, list[tuple[AtlasField, str]]] = defaultdict(list)
        # Also by address, so that such a field counts once: its level, its names without a class, its unknown names.
        self._levels: dict[str, str] = {}
        self._without_class: set[tuple[str, str]] = set()
        self._unknown: set[tuple[str, str]] = set()

    def read(self, path: Path) -> None:
        """Read a file; AtlasError naming it if it is damaged or of another version than the one asked for."""
        asked = self._settings.version
        for entry in entries(path):
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
        of_gene = [*_children(entry, *IMMUNOFLUORESCENCE)]
        for antibody in _children(entry, "antibody"):
            id = antibody.get("id", "")
            self.listing.antibodies.add(_letters(id))
            for expression in _children(antibody, *IMMUNOFLUORESCENCE):
                if "IF" not in expression.get("technology", "IF"):
                    continue
                for assay in (expression, *_children(expression, "subAssay")):
                    why = self._judge_assay(names, id, assay)
                    for data in _children(assay, "data"):
                        self._read_data(data, (assay, expression, *of_gene), id, gene, why)

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
            why, labels = self._judge(data, cell_line, level, addresses)
        for address, id in addresses.items():
            self._found[address].append((AtlasField(id, labels, antibody, (gene,), cell_line, level, address), why))

    def _judge(
        self, data: ElementTree.Element, cell_line: str, level: str, addresses: Iterable[str]
    ) -> tuple[str, tuple[int, ...]]:
        """Return why the fields of a cell line are left out, empty if they are not, and their labels.

        addresses: of these fields
        """
        if self._lines and _letters(cell_line) not in self._lines:
            return "another cell line", ()
        for address in addresses:
            self._levels.setdefault(address, level)
        # A location may have a level of its own in an attribute. Without it, its cells would lack a label.
        own = {_level(value) for place in _children(data, "location") for value in place.attrib.values()}
        if level not in self._settings.reliability:
            return f"reliability: {level}", ()
        if other := sorted(own & {"enhanced", "supported", "approved", "uncertain"} - set(self._settings.reliability)):
            return f"reliability: {other[0]}", ()
        return self._read_labels(data, addresses)

    def _read_labels(self, data: ElementTree.Element, addresses: Iterable[str]) -> tuple[str, tuple[int, ...]]:
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
                self._without_class.update((other, address) for address in addresses)
            if unknown:
                self._unknown.update((unknown, address) for address in addresses)
        return ("", tuple(sorted(labels))) if labels else ("no location with a class", ())

    def finish(self) -> Listing:
        """Join the listings of each field, and return all that was found."""
        listing = self.listing
        listing.reliabilities.update(self._levels.values())
        listing.without_class.update(name for name, _ in self._without_class)
        listing.unknown.update(name for name, _ in self._unknown)
        for address, found in self._found.items():
            kept = [one for one, why in found if not why]
            # A listing without a class, or of another assay, has no labels, and does not agree with one that has some.
            labels = {one.labels for one, why in found if why.partition(":")[0] not in _NOT_ASKED_FOR}
            if not kept:
                listing.left_out[address] = found[0][1]
            elif len(labels) > 1 or len({one.antibody for one, _ in found}) > 1:
                listing.left_out[address] = "listed with different labels or antibodies"
            else:
                # Also a gene that was not asked for: another antibody against it links the two.
                genes = tuple(dict.fromkeys(gene for one, _ in found for gene in one.genes))
                listing.several_genes += len(genes) > 1
                listing.fields[address] = kept[0]._replace(genes=genes) if len(genes) > 1 else kept[0]
        return listing


def read_atlas(paths: Sequence[str | os.PathLike[str]], settings: AtlasSettings) -> Listing:
    """Read the fields that the atlas lists, file by file and entry by entry.

    paths: the XML of the whole atlas, or one file per gene; each may be gzip'd
    Raises AtlasError naming the file that is damaged, is not the atlas's XML or is of another version, the files if
    they list no field, or the key of a cell line that they do not have.
    """
    reader = _Reader(settings)
    for path in track(paths, len(paths), "files of the atlas"):
        reader.read(Path(path))
    listing = reader.finish()
    if not listing.cell_lines:
        raise AtlasError(
            f"atlas XML {shortened(paths)}: lists no immunofluorescence image (cellExpression) of an antibody; "
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
            log.warning("config key atlas.%s: not in the atlas's XML: %s", key, shortened(lacking))
    _drop_shared_ids(listing)
    return listing


def shortened(names: Iterable[object]) -> str:
    """Return the first names of many, and how many more there are."""
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
