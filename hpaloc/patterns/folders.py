"""Names of files and folders on disk: each folder is listed once, also to find what a form of names means there."""

import os
import re
import stat
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from hpaloc.delimited import SheetError
from hpaloc.files import spelled_as_on_disk
from hpaloc.planes import is_zarr

# What tells the format of a file, whose letters may be of either case.
ENDING = re.compile(r"(\.ome)?\.[^./\s]+(\.(gz|zip))?\Z", re.IGNORECASE)


def in_nfc(text: str) -> str:
    """Return text in Unicode form NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _ending_in_lower_case(name: str) -> str:
    found = ENDING.search(name)
    return name[: found.start()] + found[0].lower() if found else name


@dataclass(frozen=True)
class NameForm:
    """The names of files or folders that a component of a pattern means.

    start, end: the texts with which they begin and end, in Unicode form NFC; the case of an ending does not count
    middle: the regular expression of what is between; None for the one name ``start``
    """

    start: str
    middle: str | None = None
    end: str = ""


@lru_cache(maxsize=4096)
def compiled(regex: str) -> Callable[[str], re.Match[str] | None]:
    """Return the function that matches all of a text with a regular expression."""
    return re.compile(regex, re.DOTALL).fullmatch


class Folders:
    """Names, sizes and times of files; each folder is listed once, so that looking for an absent file costs nothing."""

    def __init__(self) -> None:
        # Per folder, with a slash at its end: its path as spelled on disk, its names, and the non-ASCII names by their
        # form NFC.
        self._listed: dict[str, tuple[str, frozenset[str], dict[str, str]]] = {}
        # Per folder, if asked for: its names in form NFC in order, also in that of their last letters, and its names
        # by their form with an ending in small letters.
        self._sorted: dict[str, list[str]] = {}
        self._by_last: dict[str, list[tuple[str, str]]] = {}
        self._by_ending: dict[str, dict[str, list[str]]] = {}
        self._matching: dict[tuple[NameForm, ...], list[str]] = {}

    def _list(self, folder: str) -> tuple[str, frozenset[str], dict[str, str]]:
        if folder not in self._listed:
            path = folder[:-1] or folder or "."
            real = spelled_as_on_disk(path)
            try:
                names = frozenset(os.listdir(real))
            except (FileNotFoundError, NotADirectoryError):
                names = frozenset()
            except OSError as error:
                raise SheetError(f"{path}: the folder cannot be listed ({error.strerror})") from None
            forms = {in_nfc(name): name for name in names if not name.isascii()}
            self._listed[folder] = real, names, forms
        return self._listed[folder]

    def entries(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield the names in a folder, in Unicode form NFC and as spelled on disk.

        folder: with a slash at its end; "" for the working folder
        Raises SheetError for a folder that cannot be listed.
        """
        _, names, _ = self._list(folder)
        return ((in_nfc(name), name) for name in names)

    def is_folder(self, path: str) -> bool:
        """Return whether a path is a folder, in any Unicode form."""
        return os.path.isdir(spelled_as_on_disk(path))

    def spelled(self, folder: str, name: str) -> list[str]:
        """Return the name of a file as spelled on disk, or all that differ from it in the case of the ending alone.

        folder: with a slash at its end; "" for the working folder
        Raises SheetError for a folder that cannot be listed.
        """
        _, names, forms = self._list(folder)
        if name in names:
            return [name]
        name = in_nfc(name)
        if name in names or name in forms:
            return [forms.get(name, name)]
        if folder not in self._by_ending:
            by_ending: dict[str, list[str]] = {}
            for own in names:
                by_ending.setdefault(_ending_in_lower_case(in_nfc(own)), []).append(own)
            self._by_ending[folder] = by_ending
        return self._by_ending[folder].get(_ending_in_lower_case(name), [])

    def names_of(self, folder: str, form: NameForm) -> list[str]:
        """Return the names of a form in a folder, as spelled on disk.

        folder: with a slash at its end; "" for the working folder
        Raises SheetError for a folder that cannot be listed.
        """
        if form.middle is None:
            return self.spelled(folder, form.start)
        _, names, forms = self._list(folder)
        matches, start, end = compiled(form.middle), len(form.start), len(form.end)
        near = self._with_end(folder, names, form.end)
        if start:
            last = _ending_in_lower_case(form.end)
            near = self._with_start(folder, names, form.start)
            near = (name for name in near if _ending_in_lower_case(name).endswith(last))
        # Hidden files match no wildcard.
        found = [
            name for name in near if matches(name[start : len(name) - end]) and (start or not name.startswith("."))
        ]
        return [forms.get(name, name) for name in found if len(name) >= start + end]

    def _with_start(self, folder: str, names: frozenset[str], start: str) -> Iterator[str]:
        if folder not in self._sorted:
            self._sorted[folder] = sorted(map(in_nfc, names))
        ordered = self._sorted[folder]
        found = (ordered[place] for place in range(bisect_left(ordered, start), len(ordered)))
        return takewhile(lambda name: name.startswith(start), found)

    def _with_end(self, folder: str, names: frozenset[str], end: str) -> Iterator[str]:
        if folder not in self._by_last:
            self._by_last[folder] = sorted((_ending_in_lower_case(name)[::-1], name) for name in map(in_nfc, names))
        ordered, last = self._by_last[folder], _ending_in_lower_case(end)[::-1]
        found = (ordered[place] for place in range(bisect_left(ordered, (last, "")), len(ordered)))
        return (name for _, name in takewhile(lambda pair: pair[0].startswith(last), found))

    def matching(self, components: tuple[NameForm, ...]) -> list[str]:
        """Return the folders, with a slash at their end, whose path has components of these forms; [""] for none.

        Raises SheetError for a folder that cannot be listed.
        """
        if components not in self._matching:
            found = [""]
            for form in components:
                if form.middle is None:
                    found = [f"{folder}{form.start}/" for folder in found]
                else:
                    names = ((folder, name) for folder in found for name in self.names_of(folder, form))
                    found = [f"{folder}{name}/" for folder, name in names if self.is_folder(f"{folder}{name}")]
            self._matching[components] = found
        return self._matching[components]

    def find(self, path: str) -> tuple[str, os.stat_result] | None:
        """Return the path of a file or an OME-Zarr folder as spelled on disk, and its stat; None if there is none.

        Names that differ only in their Unicode form are the same, and so are, if there is no other, names that differ
        in the case of their ending.

        Raises SheetError for a folder that cannot be listed, and naming two files that the path may mean.
        """
        folder, slash, name = path.rstrip("/").rpartition("/")
        real, names, _ = self._list(f"{folder}{slash}")
        own = name
        if name not in names:
            spelled = self.spelled(f"{folder}{slash}", name)
            if len(spelled) > 1:
                one, other = (f"{folder}{slash}{each}" for each in sorted(spelled)[:2])
                raise SheetError(f"{path}: this may be {one} or {other}; remove one of them")
            if not spelled:
                return None
            own = spelled[0]
        if folder and real != folder:
            path = f"{real}/{own}"
        elif own != name:
            path = f"{folder}{slash}{own}"
        try:
            found = os.stat(path)
        except OSError:
            # Removed meanwhile, or a circular link.
            return None
        return (path, found) if stat.S_ISREG(found.st_mode) or is_zarr(path) else None
