"""The one reader of the tables that people write: sheets, true cells, examples, mixtures."""

import csv
import difflib
import io
import logging
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from hpaloc.files import spelled_as_on_disk
from hpaloc.ids import alike, normal_text, shown

log = logging.getLogger("hpaloc")

_MARKS = ",;\t"
# The line by which a spreadsheet is told what divides the columns; what follows it other programs have added.
_SEPARATOR = re.compile(r'"?sep=([^\w"\r\n])"?[,;\t ]*(?:\r\n|\r|\n|$)', re.IGNORECASE)

# How alike the letters of two names must be (difflib's ratio), so that one counts as a slip for the other: one letter
# wrong, or two exchanged, in the five of `split`.
_ALIKE = 0.8
# Words of their own, nevertheless.
_ORDINARY = frozenset({"pixels", "slit", "spit"})
# A known name with nothing but these around it is that name: a unit, a plural, a number, what it is of.
_SAME = re.compile(
    r"(?:ids?|names?|no|nr|number|code|value|values|col|column|"
    r"um|μm|nm|mm|px|in|per|micron|microns|micrometers?|micrometres?|nanometers?|nanometres?|x|y|"
    r"validation|valid|val|training|train|test|data|dataset|set|part|"
    r"the|my|hpa|primary|physical|image|img|field|sample|e?s|\d)*+"
)
_UNITS = {"pixel_size": " (µm)"}


class SheetError(ValueError):
    """A table that a person wrote, or its files, are not as the configuration says; the message says what and where."""


def read_delimited(
    path: str | os.PathLike[str],
    kind: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    loose: Sequence[str] = (),
    told: Collection[str] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table that a person wrote: yield the line number and the values by column of each row that has any.

    UTF-8, with a byte-order mark or without; commas, semicolons or tabs; any line end; blank lines, a first line
    ``sep=;`` and columns without a name are left out; blanks around names and values are taken away, and values are in
    Unicode form NFC. ``kind`` is what the table is called in messages. Columns ``needed`` and ``optional`` are known by
    their name, also in other case and with other blanks, ``_`` and ``-``, of which a warning tells unless the column
    is among ``told``; a column with nearly the name of one that is absent is refused. ``loose`` are known too, but
    what is nearly one of them is another column. Other columns are left alone. Raises SheetError naming the file, and
    the line or column, where it is no such table.
    """
    name = f"{kind} {os.fspath(path)}"
    text = _text(path, name)
    known = (*needed, *optional, *loose)
    separator = _SEPARATOR.match(text)
    skipped = 1 if separator else 0
    text = text[separator.end() :] if separator else text
    mark = _mark(text, known, separator and separator[1])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    line = skipped
    try:
        header = next((names for values in reader if any(names := [normal_text(value) for value in values])), [])
        line = reader.line_num + skipped
        places = _places(header, needed, optional, loose, name, told)
        width = max((place for place, column in enumerate(header, 1) if column), default=0)
        for values in reader:
            line = reader.line_num + skipped
            if not normal_text("".join(values)):
                continue
            if len(values) < width or (len(values) > len(header) and any(map(normal_text, values[len(header) :]))):
                raise SheetError(f"{name}, line {line}: does not have {len(header)} columns as the header has")
            yield line, {column: normal_text(values[place]) for column, place in places.items()}
    except csv.Error as error:
        # The message names the mark as it is. The reader counts as far as the last row that could be read.
        raise SheetError(f"{name}, line {line + 1}: {str(error).replace(chr(9), 'tab')}") from None


def check_fields(table: str, fields: Iterable[str], ids: Collection[str], collection: str) -> None:
    """Hold the fields that a table names against the IDs of a collection's sheet.

    ``table`` is what messages call it. A warning tells of fields that are not in the sheet, which are left out. Raises
    SheetError where one of them is in the sheet but for upper and lower case or the form of a letter, naming both, and
    where none of them is.
    """
    fields = list(fields)
    elsewhere = [field for field in fields if field not in ids]
    if not elsewhere:
        return
    sheet = {alike(id): id for id in ids}
    for field in elsewhere:
        if (id := sheet.get(alike(field))) is not None:
            raise SheetError(
                f"{table} (ID {shown(field)}): the sheet of collection {collection} has {shown(id)}, which differs in "
                "upper and lower case or blanks alone: write it as the sheet does"
            )
    first = ", ".join(map(shown, elsewhere[:10]))
    which = f"the first ten: {first}" if len(elsewhere) > 10 else first
    where = f"in the sheet of collection {collection}"
    if len(elsewhere) == len(fields):
        raise SheetError(f"{table}: none of its fields ({len(fields)}) is {where}: {which}")
    number = f"{len(elsewhere)} of its {len(fields)} fields {'is' if len(elsewhere) == 1 else 'are'}"
    log.warning("%s: %s not %s, and left out: %s", table, number, where, which)


def _text(path: str | os.PathLike[str], name: str) -> str:
    try:
        text = Path(spelled_as_on_disk(os.fspath(path))).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SheetError(f"{name}: no such file") from None
    except OSError as error:
        raise SheetError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SheetError(f"{name}: is no UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    # UTF-16 without its mark: every second byte of it is 0.
    if "\0" in text[:2]:
        raise SheetError(f"{name}: is no UTF-8 text (byte {text.index(chr(0))}); save it as CSV UTF-8")
    return text


def _mark(text: str, known: Sequence[str], said: str | None) -> str:
    """Return what divides the columns: the mark by which most of the known columns are in the header."""
    names = {_letters(column) for column in known}

    def found(mark: str) -> tuple[int, int]:
        try:
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
            header = next((values for values in rows if any(map(normal_text, values))), [])
        except csv.Error:
            return -1, text.split("\n", 1)[0].count(mark)
        return len(names & set(map(_letters, header))), len(header)

    # Of equal ones the first: what the table says of itself, then as they stand in _MARKS.
    return max([*([said] if said else ()), *_MARKS], key=found)


def _letters(column: str) -> str:
    """Return the name of a column as it is compared: without case, blanks, ``_`` and ``-``."""
    text = unicodedata.normalize("NFKC", column).casefold()
    return "".join(each for each in text if each not in "_-" and unicodedata.category(each)[0] not in "ZC")


def _places(
    header: Sequence[str],
    needed: Sequence[str],
    optional: Sequence[str],
    loose: Sequence[str],
    name: str,
    told: Collection[str],
) -> dict[str, int]:
    """Return in which place of the header each known column is, those left out that are not there."""
    letters = [_letters(column) for column in header]
    places: dict[str, int] = {}
    renamed: list[str] = []
    for known in (*needed, *optional, *loose):
        exact = [place for place, column in enumerate(header) if column == known]
        nearly = [place for place, own in enumerate(letters) if own == _letters(known) and place not in exact]
        found = exact or nearly
        if len(found) > 1:
            of = "" if exact else f" ({', '.join(shown(header[place]) for place in nearly)})"
            raise SheetError(f"{name}: has {len(found)} columns {known}{of}")
        if not found:
            continue
        places[known] = found[0]
        for place in nearly if known not in told else ():
            if exact:
                log.warning("%s: the column %s is left alone, since there is %s", name, shown(header[place]), known)
            else:
                renamed.append(f"{shown(header[place])} is read as {known}")
    if renamed:
        log.warning("%s: the column %s", name, ", the column ".join(renamed))
    free = [column for place, column in enumerate(header) if place not in places.values() and column]
    for known in (*needed, *optional):
        if known in places:
            continue
        for column in free:
            if _close(column, known):
                raise SheetError(
                    f"{name}: the column {shown(column)} is nearly {known}{_UNITS.get(known, '')}, which is not there: "
                    f"rename it, to {known} if it is meant, to something else if not"
                )
        if known in needed:
            has = ", ".join(map(shown, header)) or "nothing"
            raise SheetError(f"{name}: has no column {known} (its header has {has})")
    return places


def _close(column: str, known: str) -> bool:
    """Return whether a column's name is a slip for a known one, or that one with a unit, a plural or the like."""
    words, known_words = (sorted(re.findall(r"[^\W_]+", text.casefold())) for text in (column, known))
    own, meant = ("".join(filter(str.isalnum, _letters(text))) for text in (column, known))
    # A long name is none of these, and to compare it letter by letter would take its time.
    if own in _ORDINARY or len(own) > 60:
        return False
    if meant in own:
        return any(_SAME.fullmatch(own[: hit.start()] + own[hit.end() :]) for hit in re.finditer(meant, own))
    singular = own.removesuffix("ies") + "y" if own.endswith("ies") else own
    if singular == meant or words == known_words:
        return True
    return len(meant) > 3 and difflib.SequenceMatcher(None, own, meant, autojunk=False).ratio() >= _ALIKE
