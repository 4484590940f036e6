"""The names and numbers by which people label: those of the atlas's releases and of its two competitions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from hpaloc.classes import LOCATIONS, N_CLASSES

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
_SHORT = {location.short for location in LOCATIONS} - {location.name for location in LOCATIONS}
_WRITTEN = {name.casefold(): name for name, _ in _KNOWN.values() if name not in _SHORT}


@lru_cache(maxsize=1 << 12)
def read_labels(text: str, of_2018: bool = False) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Read the labels that a person wrote, numbers or names joined by ``|``, such as ``8|Cytosol``.

    of_2018: whether numbers are those of the 28 classes of the competition of 2018, which blanks may join, too
    Returns the distinct class indices in ascending order, and the names of the labels that have no class.
    Raises ValueError if the text is empty, or naming the part that is not a label and the names nearest to it.
    """
    text = text.strip()
    if not text:
        raise ValueError("the label is empty")
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
    name, label = _find(text, of_2018)
    if label is None:
        raise ValueError(f"{name} is not among the {N_CLASSES} locations")
    return label


def _find(part: str, of_2018: bool) -> tuple[str, int | None]:
    numbers = len(_OF_2018) if of_2018 else N_CLASSES
    # No label has many digits, and int() refuses thousands of them with an error of its own.
    if part.isascii() and part.isdigit() and len(part) < 20 and int(part) < numbers:
        return _KNOWN[_letters((_OF_2018 if of_2018 else [location.name for location in LOCATIONS])[int(part)])]
    if len(part) <= 80 and (found := _KNOWN.get(_letters(part))) is not None:
        return found
    near = [_WRITTEN[name] for name in get_close_matches(part[:80].casefold(), _WRITTEN)]
    hint = f"; the nearest known {'are' if len(near) > 1 else 'is'} {', '.join(near)}" if near else ""
    more = "; labels: hpa2018 reads the numbers of 2018" if part in map(str, range(numbers, len(_OF_2018))) else ""
    raise ValueError(
        f"unknown label {part[:40]!r}{hint} (labels are integers from 0 to {numbers - 1} or names of locations, joined "
        f"by |{more})"
    )


def list_left_out(others: Iterable[str]) -> str:
    """Return names of labels without a class with their counts, for a message: ``Rods & rings (2), Midbody (1)``."""
    return ", ".join(f"{name} ({number})" for name, number in Counter(others).items())
