"""The layouts of a folder: which part of the names of its files is the channel, the plane along z, the field."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpaloc.classes import COLOURS
from hpaloc.describing.listing import image_ending
from hpaloc.describing.words import MERGED, NOT_CHANNELS, WORD

# No folder has files of more channels.
_MOST_CHANNELS = 10
# Names that are looked at before the others.
_SOME = 1000
_GUID = r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}"
# How plate readers name their files, without the ending; ``any`` is a part that says nothing.
_READERS = {
    "ImageXpress (MetaXpress)": (
        rf"(?P<plate>.+)_(?P<well>[A-P]\d\d)(?:_s(?P<site>\d+))?_w(?P<channel>\d)(?P<any>{_GUID})?"
    ),
    "Operetta or Opera Phenix (Harmony)": (
        r"r(?P<row>\d\d)c(?P<column>\d\d)f(?P<site>\d+)p(?P<z>\d\d)(?:rc\d+)?-ch(?P<channel>\d+)sk(?P<time>\d+)fk1fl\d+"
    ),
    "CellVoyager": (
        r"(?P<plate>.+)_(?P<well>[A-P]\d\d)_T(?P<time>\d{4})F(?P<site>\d{3})L\d\dA(?P<any>\d\d)Z(?P<z>\d\d)C(?P<channel>\d\d)"
    ),
    "IN Cell Analyzer": (
        r"(?P<row>[A-P]) - (?P<column>\d\d?)\(fld (?P<site>\d+) wv (?P<channel>[^()]+?)(?: z (?P<z>\d+))?\)"
    ),
    "Micro-Manager": r"(?P<name>img)_(?P<time>\d{9})_(?P<channel>[^/]+)_(?P<z>\d{3})",
}
_KNOWN = {name: re.compile(pattern) for name, pattern in _READERS.items()}
_RUN = r"(?<![^\W_])(?:{})(?![^\W_])"
# Letters with a number, such as w1, ch00, and several of them in a row, such as s1z03c2.
_CHAIN = re.compile(_RUN.format(r"(?:(?:xy|ch|channel|[sztcwpfm])\d{1,9})+"), re.IGNORECASE)
_LINK = re.compile(r"([a-z]+)(\d+)", re.IGNORECASE)
_WORDS = re.compile(_RUN.format(rf"channel[ _-]?\d+|(?:{WORD})(?:nm)?"), re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+\d?")
_WELL = re.compile(r"[A-P](?:0?[1-9]|1\d|2[0-4])")
_ALWAYS_NAMED = ("plate", "well", "site", "row", "column", "channel")
_CHANNEL_LETTERS = ("c", "ch", "w", "channel")

_SIGNS = " _-.,+#()"

# (kind, text): kind "" is text that belongs to the name of a field, "=" text that is the same in all names of a layout.
Piece = tuple[str, str]
Span = tuple[int, int, str]


@dataclass(frozen=True)
class File:
    """One file of a field: ``channel``, ``z`` and ``time`` as its name has them, "" if it does not say."""

    path: str
    channel: str = ""
    z: str = ""
    time: str = ""


@dataclass
class Layout:
    """Files whose names follow one pattern.

    pattern: relative to the folder, with parts in braces
    reader: the plate reader or program that names its files so
    guessed: whether no word says that a part of the names is the channel
    fields: {values of the parts that name a field: its files}
    own_parts: the names of these parts, in the pattern's order
    """

    pattern: str
    reader: str = ""
    guessed: bool = False
    own_parts: list[str] = field(default_factory=list)
    fields: dict[tuple[str, ...], list[File]] = field(default_factory=dict)

    @property
    def files(self) -> list[File]:
        """The files of all fields."""
        return [file for files in self.fields.values() for file in files]

    def values(self, kind: str) -> list[str]:
        """Return the values of ``channel``, ``z`` or ``time``, in order; [] if the names do not say it."""
        found = {getattr(file, kind) for file in self.files} - {""}
        return sorted(found, key=lambda value: (len(value), value) if value.isdigit() else (0, value))


@dataclass(frozen=True)
class Layouts:
    """The layouts of a folder, the largest first, and the pictures that are not channels.

    merged, thumbnails: paths of pictures of several colours, and of small pictures and label images
    """

    found: list[Layout]
    merged: list[str]
    thumbnails: list[str]


def find_layouts(paths: Sequence[str], with_channels: bool = True) -> Layouts:
    """Sort the images of a folder into layouts by their names.

    paths: of the images, relative to the folder; names of plate readers are recognised as such, and of others the part
    that is a word for a channel, or a letter and a number, and that differs between otherwise equal names
    with_channels: whether names may say the channel; False if the files turned out to hold several
    """
    channels: list[str] = []
    merged: list[str] = []
    thumbnails: list[str] = []
    for path in paths:
        name = path[: len(path) - len(image_ending(path))].rpartition("/")[2]
        of_kind = thumbnails if NOT_CHANNELS.search(name) else merged if MERGED.search(name) else channels
        of_kind.append(path)
    pools = defaultdict(list)
    for path in channels or merged or thumbnails:
        ending = image_ending(path)
        pools[ending.lower(), path.count("/")].append((path[: len(path) - len(ending)], ending))
    found = [layout for pool in pools.values() for layout in _layouts_of(pool, with_channels)]
    found.sort(key=lambda layout: -len(layout.files))
    return Layouts(found, merged, thumbnails)


def _layouts_of(pool: Sequence[tuple[str, str]], with_channels: bool) -> list[Layout]:
    """Return the layouts of files with one ending at one depth."""
    of_reader, rest = defaultdict(list), []
    some = [stem.rpartition("/")[2] for stem, _ in pool[:: len(pool) // _SOME + 1]]
    readers = {reader: pattern for reader, pattern in _KNOWN.items() if any(map(pattern.fullmatch, some))}
    for stem, ending in pool:
        folder, slash, name = stem.rpartition("/")
        for reader, pattern in readers.items():
            if known := pattern.fullmatch(name):
                pieces = [*_of_text(folder + slash), *_of_reader(known)]
                of_reader[reader, _shape(pieces)].append((stem + ending, pieces))
                break
        else:
            rest.append((stem, ending))
    layouts = [_layout(files, reader) for (reader, _), files in of_reader.items()]
    shapes = defaultdict(list)
    stems = [stem for stem, _ in rest]
    spans = _channel_spans(stems) if with_channels else [None] * len(stems)
    guessed = with_channels and not any(spans)
    if guessed:
        spans = _unknown_words(stems)
    for (stem, ending), span in zip(rest, spans, strict=True):
        pieces = _pieces(stem, span)
        shapes[_shape(pieces)].append((stem + ending, pieces))
    return layouts + [_layout(files, guessed=guessed and any(spans)) for files in shapes.values()]


def _shape(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    return tuple((kind, text if kind == "=" else "") for kind, text in pieces)


def _of_reader(known: re.Match[str]) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for kind, (start, end) in sorted(
        ((kind, known.span(kind)) for kind, text in known.groupdict().items() if text is not None), key=lambda p: p[1]
    ):
        pieces += [("=", known.string[at:start]), (kind, known.string[start:end])]
        at = end
    return [*pieces, ("=", known.string[at:])]


def _candidates(stem: str) -> list[Span]:
    """Return where a name may say its channel: (start, end, letters before the number)."""
    spans = []
    for chain in _CHAIN.finditer(stem):
        for link in _LINK.finditer(chain[0]):
            if link[1].casefold() in _CHANNEL_LETTERS:
                at = chain.start()
                spans.append((at + link.start(2), at + link.end(2), link[1]))
    spans += [(word.start(), word.end(), "") for word in _WORDS.finditer(stem)]
    if len(spans) < 2:
        return spans
    spans.sort()
    return [span for index, span in enumerate(spans) if not index or span[0] >= spans[index - 1][1]]


def _channel_spans(stems: Sequence[str]) -> list[Span | None]:
    """Return where each name says its channel: where otherwise equal names differ; None where none does."""
    candidates = [_candidates(stem) for stem in stems]
    # C01 is a well if others begin with other letters.
    if any(re.search(_RUN.format(r"[ABD-H]\d\d?"), stem) for stem in stems[:: len(stems) // _SOME + 1]):
        candidates = [
            [(start, end, letter) for start, end, letter in spans if letter != "C" or not _is_well(stem, start, end)]
            for stem, spans in zip(stems, candidates, strict=True)
        ]
    chosen: list[Span | None] = [None] * len(stems)
    by_count = defaultdict(list)
    for index, spans in enumerate(candidates):
        by_count[len(spans)].append(index)
    for count, indices in by_count.items():
        best = _best([[stems[index] for index in indices], [candidates[index] for index in indices]], count, stems)
        if best is not None:
            for index in indices:
                chosen[index] = candidates[index][best]
    if not any(chosen) and all(
        spans and _is_colour(stem, spans[-1]) for stem, spans in zip(stems, candidates, strict=True)
    ):
        # Files of one colour alone.
        return [spans[-1] for spans in candidates]
    return chosen


def _is_colour(stem: str, span: Span) -> bool:
    return span[1] == len(stem) and stem[span[0] : span[1]] in COLOURS


def _is_well(stem: str, start: int, end: int) -> bool:
    return end - start <= 2 and (start < 2 or not stem[start - 2].isalnum()) and not stem[end : end + 1].isalnum()


def _best(files: Sequence[Sequence], count: int, stems: Sequence[str]) -> int | None:
    """Return which of the candidates of names differs between otherwise equal names; None if none does."""
    best, most = None, 0
    for rank in range(count - 1, -1, -1):
        cuts = defaultdict(set)
        for stem, spans in zip(*files, strict=True):
            start, end, _ = spans[rank]
            cuts[stem[:start], stem[end:]].add(stem[start:end])
        values = set().union(*cuts.values())
        covered = sum(len(own) for own in cuts.values() if len(own) > 1)
        numbers = all(value.isdigit() for value in values)
        if covered <= most or len(values) > _MOST_CHANNELS or (numbers and _others_count_on(cuts, stems)):
            continue
        best, most = rank, covered
    return best


def _others_count_on(cuts: dict[tuple[str, str], set[str]], stems: Sequence[str]) -> bool:
    """Return whether numbers are those of fields: other names have other numbers there."""
    known = {before + value + after for (before, after), values in cuts.items() for value in values}
    for stem in stems:
        if stem not in known:
            for run in re.finditer(r"\d+", stem):
                if (stem[: run.start()], stem[run.end() :]) in cuts:
                    return True
    return False


def _unknown_words(stems: Sequence[str]) -> list[Span | None]:
    """Return where the last word of each name is if 2 to 5 of them occur with each of several otherwise equal names."""
    spans: list[Span | None] = []
    for stem in stems:
        runs = list(_LETTERS.finditer(stem, stem.rfind("/") + 1))
        spans.append((runs[-1].start(), runs[-1].end(), "") if runs else None)
    cuts = defaultdict(set)
    for stem, span in zip(stems, spans, strict=True):
        if span is not None:
            cuts[stem[: span[0]], stem[span[1] :]].add(stem[span[0] : span[1]])
    sets = {frozenset(values) for values in cuts.values()}
    if len(cuts) > 1 and len(sets) == 1 and 2 <= len(next(iter(sets))) <= 5:
        return spans
    return [None] * len(stems)


def _pieces(stem: str, channel: Span | None) -> list[Piece]:
    """Return the pieces of a name: its channel, z and time with the letters before them, and the text between."""
    spans = []
    if channel:
        start, end, letters = channel
        spans.append((start - len(letters), start, end, "channel"))
    for chain in _CHAIN.finditer(stem):
        links = list(_LINK.finditer(chain[0]))
        for link in links:
            letter = link[1].casefold()
            # T1 alone may be a patient, T001 is a time; a file that is called z1 and no more is a field.
            alone = channel is None and chain[0] == stem[stem.rfind("/") + 1 :]
            if not alone and (letter == "z" or (letter == "t" and (len(links) > 1 or len(link[2]) > 1))):
                at = chain.start()
                spans.append((at + link.start(), at + link.start(2), at + link.end(), "z" if letter == "z" else "time"))
    pieces: list[Piece] = []
    at = 0
    for first, start, end, kind in sorted(spans):
        pieces += [*_of_text(stem[at:first]), ("=", stem[first:start]), (kind, stem[start:end])]
        at = end
    return [*pieces, *_of_text(stem[at:])]


def _of_text(text: str) -> list[Piece]:
    """Return the pieces of text between parts, folder by folder; signs at its ends are the same in all names."""
    pieces: list[Piece] = []
    for index, of_folder in enumerate(text.split("/")):
        if index:
            pieces.append(("=", "/"))
        middle = of_folder.strip(_SIGNS)
        start = of_folder[: len(of_folder) - len(of_folder.lstrip(_SIGNS))]
        end = of_folder[len(start) + len(middle) :]
        pieces += [(kind, part) for kind, part in (("=", start), ("", middle), ("=", end)) if part]
    return pieces


def escaped(text: str) -> str:
    """Return text as the pattern that means it: braces and the wildcards of a shell are taken as they are."""
    return re.sub(r"[*?\[]", r"[\g<0>]", text).replace("{", "{{").replace("}", "}}")


def _layout(files: Sequence[tuple[str, list[Piece]]], reader: str = "", guessed: bool = False) -> Layout:
    """Return the layout of files whose names have the same shape."""
    shape = [kind for kind, _ in files[0][1]]
    columns = [[pieces[at][1] for _, pieces in files] for at in range(len(shape))]
    values = [set(column) for column in columns]
    named = {
        at
        for at, kind in enumerate(shape)
        if kind in _ALWAYS_NAMED or (kind not in ("=", "any") and len(values[at]) > 1)
    }
    own = [at for at in sorted(named) if shape[at] not in ("channel", "z", "time")]
    # A file alone, and one whose names differ in nothing but the channel, have an ID too.
    if not own and (texts := [at for at, kind in enumerate(shape) if kind in ("", "name")]):
        own = [texts[-1]]
        named |= {texts[-1]}
    own = [at for at in own if not _repeats_another(at, shape, own, columns)]
    names = _names(shape, own, values)
    coloured = {value for at in named if shape[at] == "channel" for value in values[at]} <= set(COLOURS)
    pattern = ""
    for at, kind in enumerate(shape):
        if at in names or (at in named and kind in ("channel", "z", "time")):
            pattern += "{" + names.get(at, "colour" if kind == "channel" and coloured else kind) + "}"
        elif kind == "any" and len(values[at]) > 1:
            pattern += "?" * len(columns[at][0])
        elif len(values[at]) > 1:
            pattern += "*"
        else:
            pattern += escaped(columns[at][0])
    # One spelling of the ending stands for all.
    pattern += Counter(image_ending(path) for path, _ in files[: 10 * _SOME]).most_common(1)[0][0]
    layout = Layout(pattern, reader, guessed, list(names.values()))
    special = {kind: at for at, kind in enumerate(shape) if kind in ("channel", "z", "time") and at in named}
    for path, pieces in files:
        said = {kind: pieces[at][1] for kind, at in special.items()}
        layout.fields.setdefault(tuple(pieces[at][1] for at in own), []).append(File(path, **said))
    return layout


def _repeats_another(at: int, shape: Sequence[str], own: Sequence[int], columns: Sequence[Sequence[str]]) -> bool:
    """Return whether a part says the same as a folder above it, such as Image_XY01 in the folder XY01."""
    for other in own:
        folder = ("=", "/") in zip(shape[other:at], (column[0] for column in columns[other:at]), strict=True)
        if other < at and not shape[at] and folder:
            pairs = set(zip(columns[other], columns[at], strict=True))
            if len(pairs) == len(set(columns[other])) and all(folder in name for folder, name in pairs):
                return True
    return False


def _names(shape: Sequence[str], own: Sequence[int], values: Sequence[set[str]]) -> dict[int, str]:
    """Return the names of the parts that name a field: ``id`` if there is one alone."""
    if len(own) == 1 and shape[own[0]] in ("", "name"):
        return {own[0]: "id"}
    wells = {at for at in own if all(_WELL.fullmatch(value) for value in values[at])}
    names: dict[int, str] = {}
    for at in own:
        name = shape[at]
        if not name or name in names.values():
            # Below a well are its sites, whatever they are called.
            above_well = at < max(wells, default=-1)
            name = "site" if all(value.isdigit() for value in values[at]) else "plate" if above_well else "name"
            name = "well" if at in wells else name
        number = sum(re.fullmatch(rf"{name}(_\d+)?", other) is not None for other in names.values())
        names[at] = f"{name}_{number + 1}" if number else name
    return names
