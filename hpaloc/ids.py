"""IDs of fields and numbers of cells as people write them: their normal form, and which are not allowed."""

import unicodedata

# The blanks that str.strip removes, and the blanks without width, which it leaves.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u180e\u200b\u2060\ufeff"
# Invisible letters and marks that Unicode calls printable: fillers, joiners, variation selectors.
_UNSEEN = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0))
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


def normal_text(text: str) -> str:
    """Return text in the form in which IDs and values are compared: without blanks at its ends, in Unicode form NFC."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text.strip(_BLANKS))


def alike(text: str) -> str:
    """Return a form of the text that is the same for texts that differ only in case, blanks or the form of a letter."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def _quoted(text: str) -> str:
    """Return text in quotes, with invisible characters written as escapes."""
    return "".join(each.encode("unicode_escape").decode() if each in _UNSEEN else each for each in repr(text))


def shown(text: str, length: int = 80) -> str:
    """Return text for a message: quoted if it has invisible characters or line breaks, and cut if it is too long."""
    text = text if text.isprintable() and not _UNSEEN & set(text) else _quoted(text)
    return text if len(text) <= length else text[:40] + "…"


def check_visible(id: str) -> None:
    """Raise ValueError if an ID is empty, or contains an invisible character, which is named."""
    if not id:
        raise ValueError("the ID is empty")
    if id.isascii():
        return
    for each in id:
        if each in _UNSEEN or not (each.isprintable() or unicodedata.category(each) == "Cc"):
            name = unicodedata.name(each, "character without a name")
            article = "an" if name[0] in "AEIOU" else "a"
            raise ValueError(f"the ID {_quoted(id[:200])} contains {article} {name} (U+{ord(each):04X})")


def check_id(id: str) -> None:
    """Raise ValueError with the reason if a field ID cannot be the start of a file name."""
    check_visible(id)
    if id.startswith(".") or "/" in id or "\\" in id or not id.isprintable():
        raise ValueError(f"the ID {id!r} cannot be a file name (slash, leading dot or control character)")
    if len(id.encode()) > 200:
        raise ValueError(f"the ID {id[:40]!r}… is longer than 200 bytes")


def cell_number(text: str) -> int:
    """Read the number of a cell in its field; raise ValueError if it is not a positive integer of 32 bits."""
    # No such number has more digits, and the error of int() for thousands of them would not say where.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) < 1 << 32):
        raise ValueError(f"cell {text[:40]!r} is not a positive integer of 32 bits")
    return int(text)
