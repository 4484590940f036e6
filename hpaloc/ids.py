"""IDs of fields and numbers of cells as people write them: their one form, and what cannot be one."""

import unicodedata

# What str.strip takes away, and the blanks without width, which it leaves.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u180e\u200b\u2060\ufeff"
# Letters and marks that show nothing, though Unicode calls them printable: fillers, joiners, variation selectors.
_UNSEEN = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0))
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


def normal_text(text: str) -> str:
    """Return text as IDs and values are compared: without blanks at its ends, of any kind, and in Unicode form NFC."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text.strip(_BLANKS))


def alike(text: str) -> str:
    """Return what texts share that differ in upper and lower case, number of blanks or forms of a letter alone."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def _quoted(text: str) -> str:
    """Return text in quotes, what cannot be seen in it written out."""
    return "".join(each.encode("unicode_escape").decode() if each in _UNSEEN else each for each in repr(text))


def shown(text: str, length: int = 80) -> str:
    """Return text as a message shows it: as it is, unless it would hide something, break the line or fill it."""
    text = text if text.isprintable() and not _UNSEEN & set(text) else _quoted(text)
    return text if len(text) <= length else text[:40] + "…"


def check_visible(id: str) -> None:
    """Raise ValueError where an ID is empty, or holds a character that nobody sees, with its Unicode name."""
    if not id:
        raise ValueError("the ID is empty")
    if id.isascii():
        return
    for each in id:
        if each in _UNSEEN or not (each.isprintable() or unicodedata.category(each) == "Cc"):
            name = unicodedata.name(each, "character without a name")
            article = "an" if name[0] in "AEIOU" else "a"
            raise ValueError(f"the ID {_quoted(id[:200])} holds {article} {name} (U+{ord(each):04X})")


def check_id(id: str) -> None:
    """Raise ValueError with the reason where a field id cannot serve as the start of a file name."""
    check_visible(id)
    if id.startswith(".") or "/" in id or "\\" in id or not id.isprintable():
        raise ValueError(f"the ID {id!r} cannot be a file name (slash, leading dot or control character)")
    if len(id.encode()) > 200:
        raise ValueError(f"the ID {id[:40]!r}… is longer than 200 bytes")


def cell_number(text: str) -> int:
    """Read the number of a cell in its field; raise ValueError where it is not a positive integer of 32 bits."""
    # No number has more digits, and int() would refuse thousands of them without a word of where.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) < 1 << 32):
        raise ValueError(f"cell {text[:40]!r} is not a positive integer of 32 bits")
    return int(text)
