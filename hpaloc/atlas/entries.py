"""The entries of the public XML of the Human Protein Atlas, one by one."""

import gzip
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from xml.parsers import expat

# The elements of assays in cell lines, in releases of all times.
IMMUNOFLUORESCENCE = ("cellExpression", "subcellularLocation")
# The needed children of these elements. The others are expression in tissues, RNA and the like.
_NEEDED = {"entry": ("name", "identifier", "antibody", *IMMUNOFLUORESCENCE), "antibody": IMMUNOFLUORESCENCE}


class AtlasError(ValueError):
    """XML of the atlas that cannot be read, or settings that leave no field; the message names the file or the key."""


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
        if not text.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
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


def entries(path: Path) -> Iterator[ElementTree.Element]:
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
