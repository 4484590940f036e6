"""The names and numbers by which people label: those of the atlas's releases and of its two competitions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain

from hpaloc.classes import LOCATIONS, N_CLASSES, NAMES

# The 28 classes of the competition of 2018 in the order of their numbers.
_OF_2018 = (
    *("Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies"),
    *("Endoplasmic reticulum", "Golgi apparatus", "Peroxisomes", "Endosomes", "Lysosomes", "Intermediate filaments"),
    *("Actin filaments", "Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge"),
    *("Mitotic spindle", "Microtubule organizing center", "Centrosome", "Lipid droplets", "Plasma membrane"),
    *("Cell junctions", "Mitochondria", "Aggresome", "Cytosol", "Cytoplasmic bodies", "Rods & rings"),
)
# Names in other releases of the atlas, and those of places that the competition of 2021 merged into one class. Its
# Nucleoplasm may be the whole nucleus.
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "Nucleoplasm": ("Nucleus", "Nucleus but not nucleoli"),
    "Nucleoli": ("Nucleolus", "Nucleoli rim"),
    "Nucleoli fibrillar center": ("Fibrillar center",),
    "Actin filaments": ("Focal adhesion sites", "Focal adhesions"),
    "Centrosome": ("Centriolar satellite", "Microtubule organizing center"),
    "Plasma membrane": ("Cell junctions",),
    "Mitochondria": ("Mitochondrion",),
    "Cytosol": ("Cytoplasm",),
    "Vesicles and punctate cytosolic patterns": (
        *("Vesicles", "Peroxisomes", "Endosomes", "Lysosomes", "Lipid droplets", "Cytoplasmic bodies"),
    ),
    "Negative": ("No staining",),
}
# The 19 classes of the benchmark HPAv23 (CHAMMI-75) by their names there; no other names count, such as Endosomes.
HPAV23_CLASSES = {
    "Vesicles" if location.name.startswith("Vesicles") else location.name: location.index for location in LOCATIONS
}
# Names in the atlas of what the competition of 2021 has no class for.
_WITHOUT_CLASS = (
    *("Microtubule ends", "Microtubule plus end", "Cytokinetic bridge", "Midbody", "Midbody ring", "Cleavage furrow"),
    *("Rods & rings", "Mitotic chromosome", "Kinetochore", "Basal body", "Primary cilium", "Primary cilium tip"),
    *("Primary cilium transition zone", "Acrosome", "Annulus", "Calyx", "Connecting piece", "End piece"),
    *("Equatorial segment", "Flagellar centriole", "Mid piece", "Perinuclear theca", "Principal piece"),
)


def _letters(name: str) -> str:
    """Return a name for comparison: without case, signs, "and", plurals, British spelling and "Cytoskeleton (…)"."""
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", unicodedata.normalize("NFKC", name))
    words = re.findall(r"[^\W_]+", parted.casefold())
    if words[:1] == ["cytoskeleton"] and len(words) > 1:
        del words[0]
    single = (re.sub("ies$", "y", word) if word.endswith("ies") else re.sub("(?<!u)s$", "", word) for word in words)
    return "".join(word for word in single if word != "and").replace("centre", "center").replace("organis", "organiz")


def _named() -> dict[str, tuple[str, int | None]]:
    known: dict[str, tuple[str, int | None]] = {_letters(name): (name, None) for name in _WITHOUT_CLASS}
    for location in LOCATIONS:
        for name in (location.short, *_OTHER_NAMES.get(location.name, ()), location.name):
            known[_letters(name)] = name, location.index
    return known


# By their letters: the name as it is written, and the class, None without one.
_KNOWN = _named()
# Those that messages propose.
_WRITTEN = {name.casefold(): name for name, _ in _KNOWN.values() if "." not in name}
# Signs of doubt, of absence and of more, which are not part of a name.
_SIGN = re.compile(r"[?!~*+]|^\W*[-\u2010-\u2015\u2212]|[-\u2010-\u2015\u2212]\W*$")
_EMPTY = frozenset(("", "nan", "na", "n/a", "<na>", "none", "null"))


@lru_cache(maxsize=1 << 12)
def read_labels(text: str, of_2018: bool = False) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Read the labels that a person wrote, numbers or names joined by ``|``, such as ``8|Cytosol``.

    of_2018: whether numbers are those of the 28 classes of the competition of 2018, which blanks may join, too
    Returns the distinct class indices in ascending order, and the names of the labels that have no class.
    Raises ValueError if the text is empty, or naming the part that is not a label and the names nearest to it.
    """
    text = _strip(text)
    parts = text.split() if of_2018 and re.fullmatch(r"[0-9]+( +[0-9]+)+", text) else text.split("|")
    labels, others = set(), []
    for part in map(str.strip, parts):
        name, label = _find(part, of_2018)
        if label is None:
            others.append(name)
        else:
            labels.add(label)
    return tuple(sorted(labels)), tuple(dict.fromkeys(others))


def read_label(text: str, of_2018: bool = False) -> int:
    """Read one label; the argument ``of_2018`` is that of ``read_labels``.

    Raises ValueError if the text is not one label, or if that has no class.
    """
    name, label = _find(_strip(text), of_2018)
    if label is None:
        raise ValueError(f"{name} is not among the {N_CLASSES} locations")
    return label


def _strip(text: str) -> str:
    """Return a label without blanks at its ends; ValueError if it is empty or what programs write for that."""
    text = text.strip()
    if text.casefold() in _EMPTY:
        raise ValueError(f"the label is {text or 'empty'}; write a location, or remove the row")
    return text


def _known(part: str, of_2018: bool) -> tuple[str, int | None] | None:
    """Return the name and the class of a number or name, as it is in ``_KNOWN``; None if it is neither."""
    numbers = _OF_2018 if of_2018 else NAMES
    # No label has many digits, and int() refuses thousands of them with an error of its own.
    if part.isascii() and part.isdigit() and len(part) < 20 and int(part) < len(numbers):
        return _KNOWN[_letters(numbers[int(part)])]
    return _KNOWN.get(_letters(part)) if len(part) <= 80 else None


def _find(part: str, of_2018: bool) -> tuple[str, int | None]:
    found = _known(part, of_2018)
    if found is not None and (sign := _SIGN.search(unicodedata.normalize("NFKC", part))):
        raise ValueError(
            f"label {part!r} has the sign {sign[0].strip()[0]}, which is not part of a name; write the name alone"
        )
    if found is not None:
        return found
    if not part:
        raise ValueError("there is an empty label next to a |; remove the |")
    number = len(_OF_2018) if of_2018 else N_CLASSES
    raise ValueError(
        f"unknown label {part[:40]!r}{_nearest(part)} (labels are integers from 0 to {number - 1} or names of "
        f"locations, joined by |{_advice(part, of_2018)})"
    )


def _nearest(part: str) -> str:
    # The name of a group of the atlas is none of its members, nor is it near to Cytosol.
    near = [] if _letters(part) == "cytoskeleton" else get_close_matches(part[:80].casefold(), _WRITTEN)
    which = ", ".join(_WRITTEN[name] for name in near)
    return f"; the nearest known {'are' if len(near) > 1 else 'is'} {which}" if near else ""


def _advice(part: str, of_2018: bool) -> str:
    """Return what an unknown label may be instead: several labels, or numbers of 2018."""
    if not of_2018 and re.fullmatch(r"[0-9]+( +[0-9]+)*", part[:80]) and _all_known(part.split(), True):
        blanks = ", which blanks may join" if " " in part else ""
        return f"; labels: hpa2018 reads the numbers of 2018{blanks}"
    for mark in ";,/":
        if mark in part[:80] and _all_known(part[:80].split(mark), of_2018):
            return f", not by {mark}"
    return ""


def _all_known(parts: Iterable[str], of_2018: bool) -> bool:
    return all(_known(part.strip(), of_2018) is not None for part in parts)


def list_left_out(others: Iterable[Iterable[str]]) -> str:
    """Return names of labels without a class with their counts, for a message: ``Rods & rings (2), Midbody (1)``.

    others: these names, of each field or cell
    """
    return ", ".join(f"{name} ({number})" for name, number in Counter(chain.from_iterable(others)).items())
