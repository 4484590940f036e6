"""File patterns: named parts and the shell's wildcards."""

import fnmatch
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hpaloc.delimited import SheetError, letters_of
from hpaloc.ids import normal_text, shown
from hpaloc.patterns.folders import ENDING, Folders, NameForm, compiled, in_nfc

# The parts of a pattern that are not of a field: the folder, and what the configuration says of each colour.
ROOT, COLOUR, CHANNEL = "root", "colour", "channel"
# The parts whose values the configuration gives, by its keys.
CHOSEN = {"time": "time", "z": "project"}
# Parts that may be a number, with or without leading zeros.
_NUMBERS = (CHANNEL, *CHOSEN)
# Parts with a meaning, and other spellings of them that are refused.
_MEANING = (ROOT, "id", COLOUR, CHANNEL, *CHOSEN, "antibody", "cell_line", "split", "pixel_size")
_SPELLINGS = {letters_of(name): name for name in _MEANING} | {"color": COLOUR}

_WILDCARD = re.compile(r"\*+|\?|\[!?\]?[^\]/]*\]")
# Programs such as MetaXpress write it directly behind a number.
_GUID = r"(?=[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-)"
_LISTED = 5


@dataclass(frozen=True)
class Piece:
    """A piece of a pattern: ``kind`` is text, wildcard or part; ``value`` is its text, or the name of the part."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{{{self.value}}}" if self.kind == "part" else self.value


_ANYTHING = (Piece("wildcard", "?"), Piece("wildcard", "*"))


def names_between_braces(pattern: str, key: str, nested: str = "") -> list[str]:
    """Return the names between the braces of a pattern.

    key: of the configuration, for messages
    nested: the letters that no name has, since format() would take a part of the value there
    Raises SheetError naming ``key`` if the text is not a pattern, or if there is more than a name.
    """
    return [name for _, name in _parsed(pattern, key, nested) if name is not None]


def _parsed(pattern: str, key: str, nested: str = "") -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise SheetError(f"{key}: {pattern!r} is not a pattern ({error})") from None
    for _, name, layout, conversion in parts:
        if layout or conversion or set(nested) & set(name or ""):
            raise SheetError(f"{key}: {pattern!r} has more than a name between the braces of {{{name}}}")
    return [(text, name) for text, name, _, _ in parts]


# The values of the parts that tell fields apart, that of ``colour`` or ``channel`` if there is one, and the path.
Match = tuple[tuple[str, ...], str, str]


class FilePattern:
    """A pattern of the paths of files.

    text: as in the configuration
    key: of the configuration, for messages
    names: of its parts except ``root``, each once, in their order
    """

    def __init__(self, text: str, key: str, root: str) -> None:
        """Read a pattern in which ``{root}`` stands for ``root``.

        Raises SheetError naming the key if the text is not a pattern, or a part has a name that cannot be used.
        """
        self.text, self.key = text, key
        pieces: list[Piece] = []
        for before, name in _parsed(text, key):
            pieces += _pieces(before)
            if name == ROOT:
                pieces.append(Piece("text", root))
            elif name is not None:
                self._check_name(name)
                pieces.append(Piece("part", name))
        self._pieces = pieces
        self.names = tuple(dict.fromkeys(piece.value for piece in pieces if piece.kind == "part"))
        self._template = "".join(
            str(piece) if piece.kind == "part" else piece.value.replace("{", "{{").replace("}", "}}")
            for piece in pieces
        )
        # Without wildcards, and with parts that are each one text, a pattern gives one path.
        wild = any(piece.kind == "wildcard" for piece in pieces)
        self._gives_one_path = not wild and not {*_NUMBERS} & set(self.names)

    def _check_name(self, name: str) -> None:
        known = ", ".join(f"{{{each}}}" for each in (*_MEANING[:4], *CHOSEN))
        if not name or name.isdigit() or re.search(r"[.\[\]]", name):
            raise SheetError(
                f"{self.key}: {self.text!r} has {{{name}}}, which is not a name; write such as {{plate}} or {known}"
            )
        meant = _SPELLINGS.get(letters_of(name), name)
        if meant != name:
            raise SheetError(f"{self.key}: {self.text!r} has {{{name}}}; write {{{meant}}}")

    @property
    def of_field(self) -> tuple[str, ...]:
        """The names of the parts that tell fields apart."""
        return tuple(name for name in self.names if name not in (COLOUR, *_NUMBERS))

    @property
    def selector(self) -> str | None:
        """The part that tells the colour of a file, if the pattern has one."""
        return next((name for name in (COLOUR, CHANNEL) if name in self.names), None)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of the parts whose values the configuration gives."""
        return tuple(name for name in self.names if name in (COLOUR, *_NUMBERS))

    def is_spelled(self, path: str) -> bool:
        """Return whether the letters of the ending of a path that matches are of the same case as in the pattern."""
        ending = ENDING.search(self.text)
        return ending is None or path.endswith(ending[0])

    @cached_property
    def _components(self) -> list[list[Piece]]:
        components: list[list[Piece]] = [[]]
        for piece in self._pieces:
            first, *others = piece.value.split("/") if piece.kind == "text" else [piece.value]
            for place, text in enumerate([first, *others]):
                if place:
                    components.append([])
                if text:
                    components[-1].append(Piece(piece.kind, text))
        # A folder of OME-Zarr may have a slash at its end.
        while len(components) > 1 and not components[-1]:
            components.pop()
        return components

    def check_separated(self) -> None:
        """Raise SheetError naming the key if nothing says where one part of a field ends and the next begins."""
        for component in self._components:
            for one, other in pairwise(component):
                loose = [piece.kind == "part" and piece.value in self.of_field for piece in (one, other)]
                stars = [piece.kind == "wildcard" and piece.value.startswith("*") for piece in (one, other)]
                if all(loose) or (any(loose) and any(stars)):
                    part = next(piece.value for piece, of in zip((one, other), loose, strict=True) if of)
                    side = "ends" if part == one.value else "begins"
                    raise SheetError(
                        f"{self.key}: in {self.text!r}, nothing says where {{{part}}} {side} in {one}{other}; write "
                        "the text between them, or list the fields in a sheet"
                    )

    def path(self, values: Mapping[str, str | int]) -> str:
        """Return the path of the file of ``values``, with the wildcards as they are."""
        return self._template.format_map(values)

    def find(self, values: Mapping[str, str | int], folders: Folders) -> tuple[str, os.stat_result] | None:
        """Return the path of the file of ``values`` as spelled on disk, and its stat; None if there is none.

        Raises SheetError naming two files if there are several, or a folder that cannot be listed.
        """
        if self._gives_one_path:
            return folders.find(self.path(values))
        *outer, last = (_form(component, values) for component in self._components)
        inside = folders.matching(tuple(outer))
        paths = (f"{folder}{name}" for folder in inside for name in folders.names_of(folder, last))
        files = [found for path in paths if (found := folders.find(path)) is not None]
        if len(files) > 1:
            raise self.two_files(files[0][0], files[1][0], "one field")
        return files[0] if files else None

    def two_files(self, one: str, other: str, of: str) -> SheetError:
        """Return the error that names two files that are both ``of`` one thing."""
        first, second = sorted((one, other))
        return SheetError(
            f"{self.key}: {self.text!r} finds two files for {of}, {shown(first, 300)} and {shown(second, 300)}; make "
            "the pattern narrower, such as by [!_]* or [0-9A-F]* in place of *, or move one of the files"
        )

    def numbers_along_z(self, values: Mapping[str, str | int], folders: Folders) -> set[int]:
        """Return the numbers that the part ``z``, which the pattern has, may have in files of the other ``values``.

        Raises SheetError for a folder that cannot be listed.
        """
        at = next(at for at, component in enumerate(self._components) if Piece("part", "z") in component)
        *outer, form = (_form(component, values) for component in self._components[: at + 1])
        matches = compiled(form.middle or "")
        names = (in_nfc(name) for folder in folders.matching(tuple(outer)) for name in folders.names_of(folder, form))
        hits = (matches(name[len(form.start) : len(name) - len(form.end)]) for name in names)
        return {int(hit["z"]) for hit in hits if hit}

    def walk(self, choices: Mapping[str, Sequence[str | int]], folders: Folders) -> Iterator[Match]:
        """Yield the files and folders whose paths match, with the values of the parts.

        choices: the values that the parts ``colour``, ``channel``, ``time`` and ``z`` may have; without those of ``z``,
        it is a last part of the field
        Raises SheetError for a folder that cannot be listed, and a name that is not UTF-8.
        """
        groups = {name: f"p{place}" for place, name in enumerate(self.names)}
        told: set[str] = set()
        # The Unicode form NFC of each path so far, and the path as on disk.
        reached, regex = [("", "")], ""
        *outer, last = self._components
        for component in outer:
            regex += _regex(component, groups, told, choices)
            reached = list(_below(component, regex, reached, folders))
            regex += "/"
        regex += _regex(last, groups, told, choices, at_end=True)
        matches = re.compile(regex, re.DOTALL).fullmatch
        selector = groups[self.selector] if self.selector else None
        of_field = [groups[name] for name in (*self.of_field, "z") if name in groups and name not in choices]
        for seen, path in reached:
            for name, own in _names(last, path, folders):
                if hit := matches(f"{seen}{name}"):
                    values = tuple([normal_text(hit[group]) for group in of_field])
                    yield values, hit[selector] if selector else "", f"{path}{own}"

    def nearest(self, folders: Folders) -> str:
        """Return what exists of the paths that the pattern asks for, as a sentence about the last such folder."""
        reached = [""]
        *outer, last = self._components
        for component in outer:
            loose = [each for piece in component for each in (_ANYTHING if piece.kind == "part" else [piece])]
            regex = _regex(loose, {}, set(), {})
            below = [path for _, path in _below(component, regex, [("", path) for path in reached], folders)]
            if not below:
                return _told(min(reached), component, folders)
            reached = below
        return _told(min(reached), last, folders)


def _below(
    component: Sequence[Piece], regex: str, reached: Sequence[tuple[str, str]], folders: Folders
) -> Iterator[tuple[str, str]]:
    """Yield the folders in those ``reached`` whose paths match, with a slash at their end; see ``FilePattern.walk``."""
    matches = re.compile(regex, re.DOTALL).fullmatch
    for seen, path in reached:
        for name, own in _names(component, path, folders):
            if matches(f"{seen}{name}") and (not own or folders.is_folder(f"{path}{own}")):
                yield f"{seen}{name}/", f"{path}{own}/"


def _told(folder: str, component: Sequence[Piece], folders: Folders) -> str:
    wanted = "".join(map(str, component))
    names = sorted(own for _, own in folders.entries(folder) if not own.startswith("."))
    listed = ", ".join(map(shown, names[:_LISTED])) + (f" and {len(names) - _LISTED} more" if names[_LISTED:] else "")
    place = folder.rstrip("/") or ("/" if folder else "the working folder")
    return f"in {shown(place, 300)} nothing matches {wanted}; it has {listed or 'no files'}"


def _names(component: Sequence[Piece], folder: str, folders: Folders) -> Iterable[tuple[str, str]]:
    """Return the one name that a component spells, or else all names in a folder; as ``Folders.entries`` does."""
    if any(piece.kind != "text" for piece in component):
        return folders.entries(folder)
    text = "".join(map(str, component))
    return [(in_nfc(text), text)]


def _pieces(text: str) -> list[Piece]:
    """Return the text of a pattern between its parts as pieces: wildcards, and what stands between them."""
    pieces, at = [], 0
    for hit in _WILDCARD.finditer(text):
        pieces += [Piece("text", text[at : hit.start()]), Piece("wildcard", hit[0])]
        at = hit.end()
    return [piece for piece in (*pieces, Piece("text", text[at:])) if piece.value]


def _wildcard(text: str) -> str:
    """Return the regular expression of a wildcard; a set of letters also stands for itself, as in a folder ``a[1]``."""
    if text[0] == "?":
        return "[^/]"
    if text[0] == "*":
        return "[^/]*"
    inside = fnmatch.translate(text).removesuffix(r"\Z")
    return f"(?:(?!/){inside}|{re.escape(text)})"


def _number(value: str | int | None, before: Piece | None, after: Piece | None) -> str:
    """Return the regular expression of what stands for a colour: a number may have leading zeros; None for any."""
    text = str(value)
    if value is not None and not (text.isascii() and text.isdigit()):
        return re.escape(in_nfc(text))
    start = "" if before is None or before.kind == "text" else "(?<![0-9])"
    digits = after is not None and after.kind == "text" and after.value[0].isdigit()
    number = "[0-9]+?" if value is None else f"0*{int(text)}"
    return f"{start}{number}" + ("" if digits else f"(?:(?![0-9])|{_GUID})")


def _neighbours(component: Sequence[Piece]) -> Iterator[tuple[Piece | None, Piece, Piece | None]]:
    yield from zip([None, *component], component, [*component[1:], None], strict=False)


def _text_regex(text: str, at_end: bool) -> str:
    """Return the regular expression of a text; at the end of a path, the case of the ending does not count."""
    text = in_nfc(text)
    ending = ENDING.search(text) if at_end else None
    start = ending.start() if ending else len(text)
    return re.escape(text[:start]) + (f"(?i:{re.escape(text[start:])})" if ending else "")


def _regex(
    component: Sequence[Piece],
    groups: Mapping[str, str],
    told: set[str],
    choices: Mapping[str, Sequence[str | int]],
    at_end: bool = False,
) -> str:
    """Return the regular expression of a component of a path, with a group for each part; see ``FilePattern.walk``.

    told: the parts that already have a group, to which those of this component are added
    at_end: whether it is the last one
    """
    found = "(?![.])" if component and component[0].kind != "text" else ""
    for before, piece, after in _neighbours(component):
        if piece.kind == "text":
            found += _text_regex(piece.value, at_end and after is None)
        elif piece.kind == "wildcard":
            found += _wildcard(piece.value)
        elif piece.value in told:
            found += f"(?P={groups[piece.value]})"
        else:
            told.add(piece.value)
            inside = "[^/]+"
            if piece.value == "z" and piece.value not in choices:
                inside = _number(None, before, after)
            elif piece.value in choices:
                # Of GFP and GFP2, the longer is tried first.
                of_part = sorted(map(str, choices[piece.value]), key=len, reverse=True)
                inside = "|".join(_number(each, before, after) for each in of_part)
            found += f"(?P<{groups[piece.value]}>{inside})"
    return found


def _form(component: Sequence[Piece], values: Mapping[str, str | int]) -> NameForm:
    """Return the form of the names that a component has for ``values``; without one of ``z``, it is a group."""
    texts: list[str | None] = []
    regexes: list[str] = []
    for before, piece, after in _neighbours(component):
        if piece == Piece("part", "z") and "z" not in values:
            any_number = _number(None, before, after)
            regexes.append(any_number if any("?P<z>" in regex for regex in regexes) else f"(?P<z>{any_number})")
            texts.append(None)
            continue
        said = str(values[piece.value]) if piece.kind == "part" else piece.value
        number = piece.kind == "part" and piece.value in _NUMBERS and said.isdigit()
        texts.append(None if number or piece.kind == "wildcard" else in_nfc(said))
        regexes.append(
            _number(said, before, after) if number else _wildcard(said) if texts[-1] is None else re.escape(texts[-1])
        )
    if None not in texts:
        return NameForm("".join(filter(None, texts)))
    first = texts.index(None)
    last = len(texts) - texts[::-1].index(None)
    start, end = (filter(None, part) for part in (texts[:first], texts[last:]))
    return NameForm("".join(start), "".join(regexes[first:last]), "".join(end))
