"""The one reader of the tables that people write: sheets, true cells, examples, mixtures."""

import csv
import io
import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from hpaloc.files import spelled_as_on_disk
from hpaloc.ids import alike, normal_text, shown

log = logging.getLogger("hpaloc")

_MARKS = ",;\t"
# The letters among which the header is looked for.
_HEAD = 1 << 20
# The longest value, of the csv module's own limit: an unclosed quote is found before the whole table is one value.
LONGEST = 131_072
# The line that tells a spreadsheet the delimiter of the columns; other programs may have added what follows it.
_SEPARATOR = re.compile(r'"?sep=([^\w"\r\n])"?[,;\t ]*(?:\r\n|\r|\n|$)', re.IGNORECASE)

# Words that may be added to a known name without changing its meaning: naming words, units, what it belongs to.
# Any other word names something else (`antibody_validation`, `antibody_set`, `pixel_size_z`).
# Number words count only after the name: `no_antibody` and `number_of_antibodies` are something else too.
_NUMBER = ("no", "nr", "num", "number", r"\d")
_NAMING = ("id", "name", "code", "the", "used", "list", "of", *_NUMBER)
# What programs add if two tables that they join have a column of one name.
_JOINED = ("x", "y", "left", "right")
_BESIDE_CELL = (*_NAMING, "index", "value", "image", "img", "field", "sample", "channel")
_BESIDE_OTHERS = (*_BESIDE_CELL, *_JOINED)
_BESIDE = {
    "antibody": (*_NAMING, *_JOINED, "hpa", "primary"),
    "cell_line": (*_NAMING, *_JOINED),
    # Where a cell is may be `cell_x` and `cell_y`.
    "cell": _BESIDE_CELL,
    # Numbered splits are those of a cross-validation.
    "split": (
        *("train", "training", "test", "val", "valid", "validation", "data", "dataset", "set", "part", "name", "the"),
        *("used", "of", *_JOINED),
    ),
    "pixel_size": (
        *("um", "μm", "nm", "mm", "micron", "micrometer", "micrometre", "nanometer", "nanometre", "px", "pixel"),
        *("in", "per", r"\d", "physical", "image", "img", "value", "the", "used", "scale", "resolution", *_JOINED),
    ),
}
# Other names of a known column, as expressions without blanks and signs.
_OTHER_NAMES = {
    "antibody": "ab|hpa(?:id|no|nr|number|code)",
    "split": "train(?:ing)?(?:(?:or|and)?(?:test|val(?:id(?:ation)?)?))+|(?:test|val(?:id(?:ation)?)?)(?:or|and)?train",
    "pixel_size": "(?:[uμn]m|microns?|(?:micro|nano)met(?:er|re)s?)(?:per|p)?(?:pixel|px|pix)"
    "|mpp|physicalsize|pixelspacing|sizeof(?:the)?(?:pixel|px)s?",
}
# Names that may be that of a known column, or something else.
_DOUBTFUL = {"fold": "split", "subset": "split", "partition": "split"} | dict.fromkeys(
    ("pixelwidth", "pixelheight"), "pixel_size"
)
# Other words for the words of a known name.
_SYNONYMS = {"pixel": ("px", "pix"), "url": ("uri",)}
# What a name has in brackets.
_ASIDE = re.compile(r"\([^)]*\)|\[[^]]*\]")
# Ordinary words that are not slips; `test_split` says whether a field belongs to a test.
_ORDINARY = frozenset({"slit", "spit", "testsplit", "splittest"})
_UNITS = {"pixel_size": " (µm)"}


class SheetError(ValueError):
    """A table that a person wrote, or its files, do not match the configuration; the message says what and where."""


def read_delimited(
    path: str | os.PathLike[str],
    kind: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    loose: Sequence[str] = (),
    told: Collection[str] = (),
    longest: int = LONGEST,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table that a person wrote: yield the line number and the values by column of each row that is not blank.

    The text is UTF-8, with or without a byte-order mark, with commas, semicolons or tabs and any line end. Blank lines,
    a first line ``sep=;`` and columns without a name are skipped; names and values are stripped of blanks, and values
    are in Unicode form NFC. Known columns may differ in case, blanks, ``_`` and ``-``. Other columns are left out.

    kind: what the table is called in messages
    needed, optional: known columns; a column whose name is nearly that of an absent one is refused
    loose: known columns too, but a column with nearly their name is another column
    told: known columns without a warning if their name differs
    longest: letters of the longest value
    Raises SheetError naming the file, and the line or column, if it is not such a table.
    """
    name = f"{kind} {os.fspath(path)}"
    with _opened(path, name) as file:
        csv.field_size_limit(longest)
        mark, skipped = _start(file, name, (*needed, *optional, *loose))
        reader = csv.reader(file, delimiter=mark, strict=True)
        line = skipped
        try:
            header = _first_row(reader)
            line = reader.line_num + skipped
            places = find_columns(header, name, needed, optional, loose, told)
            width = max((place for place, column in enumerate(header, 1) if column), default=0)
            for values in reader:
                line = reader.line_num + skipped
                if not any(map(normal_text, values)):
                    continue
                if len(values) < width or (len(values) > len(header) and any(map(normal_text, values[len(header) :]))):
                    raise SheetError(f"{name}, line {line}: does not have the {len(header)} columns of the header")
                yield line, {column: normal_text(values[place]) for column, place in places.items()}
        except csv.Error as error:
            # The message of the csv module contains the delimiter. The reader counts up to the last row it could read.
            raise SheetError(f"{name}, line {line + 1}: {str(error).replace(chr(9), 'tab')}") from None


def read_header(path: str | os.PathLike[str], kind: str, known: Sequence[str]) -> list[str]:
    """Return the names of the columns of a table as ``read_delimited`` finds them, empty for a table without any.

    known: columns of which the table has some, which tell the delimiter
    Raises SheetError naming the file if it cannot be read.
    """
    name = f"{kind} {os.fspath(path)}"
    with _opened(path, name) as file:
        csv.field_size_limit(LONGEST)
        mark, _ = _start(file, name, known)
        try:
            return _first_row(csv.reader(file, delimiter=mark, strict=True))
        except csv.Error as error:
            raise SheetError(f"{name}, line 1: {str(error).replace(chr(9), 'tab')}") from None


def check_fields(table: str, fields: Iterable[str], ids: Collection[str], collection: str) -> None:
    """Compare the fields that a table names with the IDs of a collection's sheet, and warn of those not in the sheet.

    table: what it is called in messages
    Raises SheetError if none of the fields is in the sheet, or naming a field that differs from an ID of the sheet only
    in case, blanks or the form of a letter.
    """
    fields = list(fields)
    elsewhere = [field for field in fields if field not in ids]
    if not elsewhere:
        return
    sheet = {alike(id): id for id in ids}
    for field in elsewhere:
        if (id := sheet.get(alike(field))) is not None:
            raise SheetError(
                f"{table} (ID {shown(field)}): the sheet of collection {collection} has {shown(id)}, which differs "
                "only in case or blanks: write it as in the sheet"
            )
    first = ", ".join(map(shown, elsewhere[:10]))
    which = f"the first ten: {first}" if len(elsewhere) > 10 else first
    where = f"in the sheet of collection {collection}"
    if len(elsewhere) == len(fields):
        raise SheetError(f"{table}: none of its fields ({len(fields)}) is {where}: {which}")
    are = "is" if len(elsewhere) == 1 else "are"
    number = f"{len(elsewhere)} of its {len(fields)} fields"
    log.warning("%s: %s %s not %s and %s ignored: %s", table, number, are, where, are, which)


def letters_of(column: str) -> str:
    """Return a name for comparison: without case, blanks, ``_`` and ``-``."""
    text = unicodedata.normalize("NFKC", column).casefold()
    return "".join(each for each in text if each not in "_-" and unicodedata.category(each)[0] not in "ZC")


@contextmanager
def _opened(path: str | os.PathLike[str], name: str) -> Iterator[TextIOWrapper]:
    """Open a table, and raise SheetError if it cannot be opened or, later, read as UTF-8."""
    try:
        with (
            open(spelled_as_on_disk(os.fspath(path)), "rb") as raw,
            TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        ):
            try:
                yield file
            except UnicodeDecodeError as error:
                # The error counts from the start of what was decoded, which ends where the file was read to.
                byte = raw.tell() - len(error.object) + error.start
                raise SheetError(f"{name}: is not UTF-8 text (byte {byte}); save it as CSV UTF-8") from None
    except SheetError:
        raise
    except FileNotFoundError:
        raise SheetError(f"{name}: no such file") from None
    except OSError as error:
        raise SheetError(f"{name}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        # A NUL in the path.
        of_path = name.removesuffix(os.fspath(path))
        raise SheetError(f"{of_path}{shown(os.fspath(path))}: cannot be read ({error})") from None


def _start(file: TextIOWrapper, name: str, known: Sequence[str]) -> tuple[str, int]:
    """Go to the first row of a table; return its delimiter, and how many lines are before that row."""
    head = file.read(_HEAD)
    # In UTF-16 without its mark every second byte is 0.
    if "\0" in head[:2]:
        raise SheetError(f"{name}: is not UTF-8 text (byte {head.index(chr(0))}); save it as CSV UTF-8")
    separator = _SEPARATOR.match(head)
    before = separator.end() if separator else 0
    file.seek(0)
    file.read(before)
    return _mark(head[before:], known, separator and separator[1]), int(before > 0)


def _first_row(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the first row that is not blank, its values stripped."""
    return next((names for values in rows if any(names := [normal_text(value) for value in values])), [])


def _mark(text: str, known: Sequence[str], said: str | None) -> str:
    """Return the delimiter of the columns: the one that gives most of the known columns in the header."""
    names = {letters_of(column) for column in known}

    def found(mark: str) -> tuple[int, int]:
        try:
            header = _first_row(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
        except csv.Error:
            return -1, text.split("\n", 1)[0].count(mark)
        return len(names & set(map(letters_of, header))), len(header)

    # Among equal ones the first counts: what the table says itself, then the order of _MARKS.
    return max([*([said] if said else ()), *_MARKS], key=found)


def find_columns(
    header: Sequence[str],
    name: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    loose: Sequence[str] = (),
    told: Collection[str] = (),
) -> dict[str, int]:
    """Return the place in the header of each known column that is there; the arguments are those of ``read_delimited``.

    name: what the table is called in messages
    Raises SheetError naming the table and a column that is missing, duplicate or nearly a known one.
    """
    letters = [letters_of(column) for column in header]
    places: dict[str, int] = {}
    renamed: list[str] = []
    for known in (*needed, *optional, *loose):
        exact, wanted = [place for place, column in enumerate(header) if column == known], letters_of(known)
        nearly = [place for place, own in enumerate(letters) if own == wanted and place not in exact]
        found = exact or nearly
        if len(found) > 1:
            of = "" if exact else f" ({', '.join(shown(header[place]) for place in nearly)})"
            raise SheetError(f"{name}: has {len(found)} columns {known}{of}")
        if not found:
            continue
        places[known] = found[0]
        for place in nearly if known not in told else ():
            if exact:
                log.warning("%s: the column %s is ignored, since there is %s", name, shown(header[place]), known)
            else:
                renamed.append(f"{shown(header[place])} is read as {known}")
    if renamed:
        log.warning("%s: the column %s", name, ", the column ".join(renamed))
    absent = {*optional} - places.keys()
    for column, own in zip(header, letters, strict=True):
        if (meant := _DOUBTFUL.get(own)) in absent:
            log.warning("%s: the column %s is not read as %s; name it so if it is that", name, shown(column), meant)
    free = [column for place, column in enumerate(header) if place not in places.values() and column]
    for known in (*needed, *optional):
        if known in places:
            continue
        for column in free:
            if any(_close(each, known) for each in (column, _ASIDE.sub(" ", column))):
                raise SheetError(
                    f"{name}: the column {shown(column)} is nearly {known}{_UNITS.get(known, '')}, which is missing: "
                    f"rename it to {known} if that is meant, or to something else if not"
                )
        if known in needed:
            has = ", ".join(map(shown, header)) or "nothing"
            raise SheetError(f"{name}: has no column {known} (its header has {has})")
    return places


def _close(column: str, known: str) -> bool:
    """Return whether a column's name is a known one with a slip, a unit, a plural or similar."""
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", unicodedata.normalize("NFKC", column))
    words = re.findall(r"[^\W\d_]+|\d+", parted.casefold())
    own, meant = "".join(words), known.casefold().split("_")
    # A long name is none of these, and comparing it letter by letter would take long.
    if len(own) > 60 or own in _ORDINARY or _singular(own) in _ORDINARY:
        return False
    beside = sorted(_BESIDE.get(known, _BESIDE_OTHERS), key=len, reverse=True)
    behind = re.compile(f"(?:(?:{'|'.join(beside)})s?)*+")
    before = re.compile(f"(?:{'|'.join(word for word in beside if word not in _NUMBER)})*+")

    def alone(start: str, end: str) -> bool:
        return bool(before.fullmatch(start) and behind.fullmatch(end))

    hits = re.finditer("|".join(filter(None, ("".join(meant), _OTHER_NAMES.get(known)))), own)
    named = [word for word in words if word in meant or word not in beside or word in _NUMBER]
    if sorted(named) == sorted(meant) or any(alone(own[: hit.start()], own[hit.end() :]) for hit in hits):
        return True
    return any(
        alone("".join(words[:start]), "".join(words[end:])) and _meant(words[start:end], meant)
        for start, end in itertools.combinations(range(len(words) + 1), 2)
    )


def _meant(words: Sequence[str], meant: Sequence[str]) -> bool:
    """Return whether words are those of a known name, each possibly with a slip or in the plural, or run together."""
    # In a name as short as `split`, few slips give no other word.
    long = len("".join(meant)) > 5
    own = "".join(words)
    cuts = itertools.combinations(range(1, len(own)), len(meant) - 1)
    parts = ([own[a:b] for a, b in itertools.pairwise((0, *cut, len(own)))] for cut in cuts)
    ways: Iterable[Sequence[str]] = [words] if len(words) == len(meant) else parts
    return any(
        all(_slip(word, of, long) or _slip(_singular(word), of, long) for word, of in zip(way, meant, strict=True))
        for way in ways
    )


def _singular(word: str) -> str:
    return word.removesuffix("ies") + "y" if word.endswith("ies") else word.removesuffix("s")


def _slip(word: str, meant: str, long: bool) -> bool:
    """Return whether a word differs from another only by two letters exchanged, one missing or one written twice.

    In a word of five letters or more in a ``long`` name, one letter may also be wrong, or an extra one inside; in a
    shorter word that gives another word (`lane` from `line`, `side` from `size`, `splint` from `split`).
    """
    if word == meant or word in _SYNONYMS.get(meant, ()):
        return True
    if len(meant) < 3 or word in _ORDINARY:
        return False
    long = long and len(meant) >= 5
    if len(word) == len(meant):
        wrong = [place for place, (one, other) in enumerate(zip(word, meant, strict=True)) if one != other]
        first, last = wrong[0], wrong[-1]
        exchanged = last - first == 1 and word[first : last + 1] == meant[first : last + 1][::-1]
        return exchanged or (long and first == last)
    if len(word) == len(meant) - 1:
        return any(meant[:place] + meant[place + 1 :] == word for place in range(len(meant)))
    return len(word) == len(meant) + 1 and any(
        word[:place] + word[place + 1 :] == meant
        and (letter in (word[place - 1 : place], word[place + 1 : place + 2]) or (long and 0 < place < len(meant)))
        for place, letter in enumerate(word)
    )
