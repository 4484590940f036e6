"""The words for channels in file names and metadata, and the colour that each speaks for."""

import re
from dataclasses import dataclass

from hpaloc.classes import COLOURS

STAINED = {"red": "microtubules", "green": "the protein", "blue": "nuclei", "yellow": "the endoplasmic reticulum"}
# By how much a word says: a structure or the stain of one, a colour, a fluorophore or laser.
STRUCTURE, COLOUR, LIGHT = range(3)


@dataclass(frozen=True)
class Meaning:
    """What the name of a channel says.

    colour: None if it is none of the four
    strength: STRUCTURE, COLOUR or LIGHT; lower is stronger
    reason: a phrase about the channel
    """

    colour: str | None
    strength: int
    reason: str


# (strength, colour, what it is, words as regular expressions). The first that fits counts.
_TABLE: tuple[tuple[int, str | None, str, str], ...] = (
    (STRUCTURE, None, "transmitted light", r"bf|dic|ph\d?|tl|pmt ?t|bright ?field|trans(mitted)?|phase( ?contrast)?"),
    (STRUCTURE, "blue", "a stain of nuclei", r"dapi|hoechst(?: ?\d+)?|draq ?\d|nuc(?:lei|leus|lear)?|dna|h2b|histone"),
    (STRUCTURE, "red", "microtubules", r"(?:(?:alpha|beta|sir|a|b) ?)?tubulin|tub|microtubules?|mts?|tub[ab]\d?\w?"),
    (
        STRUCTURE,
        "yellow",
        "the endoplasmic reticulum",
        r"er|calnexin|canx|calreticulin|calr|kdel|sec61\w?|endoplasmic(?: ?reticulum)?|con ?a|concanavalin ?\w?|pdi",
    ),
    (STRUCTURE, "green", "the protein", r"protein|antibody|poi|goi|target|hpa\d*"),
    (STRUCTURE, None, "actin", r"actin|phalloidin|lifeact|agp"),
    (STRUCTURE, None, "mitochondria", r"mito(?:chondria|tracker)?|tomm?20|cox4"),
    (STRUCTURE, None, "RNA", r"rna|syto ?\d*"),
    (STRUCTURE, None, "the Golgi apparatus or the plasma membrane", r"golgi|wga|gm130|membrane"),
    (COLOUR, "yellow", "yellow", r"yellow"),
    (COLOUR, "yellow", "far red, as the endoplasmic reticulum often is", r"far ?red|fr"),
    (COLOUR, "red", "red", r"red"),
    (COLOUR, "green", "green", r"green"),
    (COLOUR, "blue", "blue", r"blue|uv"),
    (
        LIGHT,
        "blue",
        "the light of stains of nuclei",
        r"(?:af|alexa ?(?:fluor)? ?)?(?:350|358|385|395|405|408|461)|e?bfp|e?cfp",
    ),
    (
        LIGHT,
        "green",
        "the light in which proteins are mostly shown",
        r"(?:af|alexa ?(?:fluor)? ?)?(?:470|475|488|491|509|514|517|519|520|525|530)|e?gfp|e?yfp|fitc|venus|citrine|"
        r"cy ?2|m?neon(?:green)?|clover|bodipy|atto ?488",
    ),
    (
        LIGHT,
        "red",
        "the light in which microtubules are often shown",
        r"(?:af|alexa ?(?:fluor)? ?)?(?:532|543|546|550|552|555|561|565|568|573|580|590|594|600|603|610|617)|m?cherry|"
        r"rfp|tritc|texas ?red|txred|cy ?3(?:[. ]?5)?|m?scarlet|td ?tomato|m?ruby|rhodamine|atto ?5\d\d",
    ),
    (
        LIGHT,
        "yellow",
        "the light in which the endoplasmic reticulum is often shown",
        r"(?:af|alexa ?(?:fluor)? ?)?(?:630|633|635|637|639|640|642|647|660|665|668|670|680|685|690|700|730|750)|"
        r"cy ?[57](?:[. ]?5)?|i?rfp ?\d+|atto ?6\d\d|sir",
    ),
)
_WORDS = [
    (re.compile(rf"(?<![^\W_])(?:{words})(?:nm)?(?![^\W_])"), strength, colour, what)
    for strength, colour, what, words in _TABLE
]
# Words between other words and numbers of a file name. A number alone is a wavelength.
WORD = re.compile(
    "|".join(f"(?:{words.replace(' ?', '[ _-]?')})" for strength, _, _, words in _TABLE), re.IGNORECASE
).pattern
# Pictures of several colours, for people to look at.
MERGED = re.compile(
    rf"(?:(?<![^\W_])(?:{'|'.join(COLOURS)})(?:[_+&. -](?:{'|'.join(COLOURS)}))+|"
    r"(?<![^\W_])(?:merged?|composite|overlay|rgb|montage|c\d(?:[+-]\d)+))(?![^\W_])",
    re.IGNORECASE,
)
# Pictures of channels that are smaller, and label images.
NOT_CHANNELS = re.compile(
    r"(?<![^\W_])(?:thumb(?:nail)?s?[\dA-F-]*|preview|label|overview|(?:cell|nuclei|nucleus)?_?masks?|labels|segmentation|"
    r"outlines?)(?![^\W_])",
    re.IGNORECASE,
)


def meaning(name: str) -> Meaning | None:
    """Return what the name of a channel says about its colour; None if it says nothing.

    Several words of a name count by their strength: ``Tubulin-488`` is tubulin.
    """
    text = " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
    for pattern, strength, colour, what in _WORDS:
        if found := pattern.search(text):
            said = f"its name says {found[0]!r} ({what})" if found[0] != what else f"its name says {what}"
            return Meaning(colour, strength, said)
    return None


def light(wavelength: float) -> Meaning | None:
    """Return what the wavelength of emitted light (nm) says about a channel; None outside of visible light."""
    for most, colour in ((485, "blue"), (545, "green"), (632, "red"), (850, "yellow")):
        if 400 <= wavelength < most:
            what = next(what for strength, own, what, _ in _TABLE if strength == LIGHT and own == colour)
            return Meaning(colour, LIGHT, f"its light of {wavelength:g} nm is {what}")
    return None
