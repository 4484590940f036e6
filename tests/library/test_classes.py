"""Labels: what is read, what is refused, and the vectors made of them."""

import numpy as np
import pytest
from skimage.color import xyz2lab

from hpaloc.classes import (
    LOCATIONS,
    N_CLASSES,
    NAMES,
    NEGATIVE,
    format_labels,
    label_matrix,
    parse_labels,
)
from hpaloc.location_names import _OF_2018, _OTHER_NAMES, _WITHOUT_CLASS, _letters, read_label, read_labels


def test_the_nineteen_locations_in_the_competitions_order():
    assert N_CLASSES == 19
    assert [location.index for location in LOCATIONS] == list(range(19))
    assert (NAMES[0], NAMES[11], NAMES[16], NAMES[NEGATIVE]) == (
        "Nucleoplasm",
        "Mitotic spindle",
        "Cytosol",
        "Negative",
    )
    assert len({location.colour for location in LOCATIONS}) == 19


@pytest.mark.parametrize(("text", "labels"), [("8|5|0", (0, 5, 8)), ("13|13", (13,)), (" 4 ", (4,)), ("18|0", (0, 18))])
def test_label_strings_are_sets(text, labels):
    assert parse_labels(text) == labels
    assert read_labels(text) == (labels, ())
    assert parse_labels(format_labels(labels)) == labels


@pytest.mark.parametrize("text", ["", "19", "-1", "1.0", "1||2", "a", "nan", "1,2", "²"])
def test_unknown_labels_are_refused(text):
    for read in (parse_labels, read_labels):
        with pytest.raises(ValueError, match="label"):
            read(text)


# The numbers of 2018 and what the same 21,806 fields have in 2021.
FROM_2018 = [*range(8), 17, 17, 17, 8, 9, 9, 10, None, None, 11, 12, 12, 17, 13, 13, 14, 15, 16, 17, None]


def test_the_numbers_of_2018():
    read = [read_labels(str(number), of_2018=True) for number in range(28)]
    assert [labels[0] if labels else None for labels, _ in read] == FROM_2018
    assert [names for labels, names in read if not labels] == [
        ("Microtubule ends",),
        ("Cytokinetic bridge",),
        ("Rods & rings",),
    ]
    assert read_labels("25|16 | 8|9", of_2018=True) == read_labels("25 16 8 9", of_2018=True)
    assert read_labels("25 16 8 9", of_2018=True) == ((16, 17), ("Cytokinetic bridge",))
    # Names mean the same with any numbers.
    assert read_labels("Mitotic spindle|11", of_2018=True)[0] == (8, 11)
    for text, of_2018 in (("28", True), ("19", False), ("1 2", False)):
        with pytest.raises(ValueError, match=r"unknown label"):
            read_labels(text, of_2018)


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: location.name)
def test_a_location_has_its_names_in_any_spelling(location):
    spellings = {location.name, location.short, location.name.upper(), location.name.replace(" ", "_")}
    spellings |= {
        "".join(word.capitalize() for word in location.name.split()),
        location.index,
    }
    assert {read_labels(str(text)) for text in spellings} == {((location.index,), ())}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Nucleus but not nucleoli", 0),
        ("Nucleoli (Fibrillar center)", 3),
        ("nucleoli fibrillar centre", 3),
        ("Cytoskeleton (Intermediate filaments)", 8),
        ("Focal Adhesions", 9),
        ("nuclear body", 5),
        ("Microtubule organising centre", 12),
        ("Centriolar satellites", 12),
        ("Cell Junctions", 13),
        ("Mitochondrion", 14),
        ("Cytoplasm", 16),
        *((name, 17) for name in ("Vesicles", "Peroxisomes", "Endosome", "Lysosomes", "Lipid droplets")),
        ("Cytoplasmic bodies", 17),
        ("No staining", 18),
        *((name, None) for name in ("Rods & Rings", "rods and rings", "Cytoskeleton (Cytokinetic bridge)", "Midbody")),
    ],
)
def test_names_of_other_releases(name, label):
    assert read_labels(name)[0] == (() if label is None else (label,))
    if label is None:
        with pytest.raises(ValueError, match="is not among the 19 locations"):
            read_label(name)
    else:
        assert read_label(name) == label


def test_no_two_locations_have_one_name():
    names = [*NAMES, *_OF_2018, *_WITHOUT_CLASS, *(name for others in _OTHER_NAMES.values() for name in others)]
    of_letters = {}
    for name in dict.fromkeys(names):
        of_letters.setdefault(_letters(name), []).append(name)
    assert [same for same in of_letters.values() if len(same) > 1] == []
    assert set(_OTHER_NAMES) <= set(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Golgy apparratus", "unknown label 'Golgy apparratus'; the nearest known is Golgi apparatus (labels are"),
        ("0|Cytosole", "unknown label 'Cytosole'; the nearest known are Cytosol"),
        ("19", "joined by |; labels: hpa2018 reads the numbers of 2018)"),
        ("16 0", "joined by |; labels: hpa2018 reads the numbers of 2018, which blanks may join)"),
        ("0;Cytosol", "joined by |, not by ;)"),
        ("Nuclear membrane, Cytosol", "joined by |, not by ,)"),
        ("Vesicels", "unknown label 'Vesicels'; the nearest known is Vesicles (labels"),
        ("Golgy", "; the nearest known is Golgi (labels"),
        ("Actinn", "; the nearest known is Actin (labels"),
        ("ERR", "; the nearest known is ER (labels"),
        ("Cytoskeleton", "unknown label 'Cytoskeleton' (labels"),
        ("28", "unknown label '28' (labels are integers from 0 to 18 or names of locations, joined by |)"),
        ("x" * 100_000, "unknown label"),
        ("Nucleoli" + " " * 100 + "x", "unknown label"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(text, message):
    with pytest.raises(ValueError, match="unknown label") as error:
        read_labels(text)
    assert message in str(error.value)


@pytest.mark.parametrize("sign", ["?", "!", "~", "*", "+", "-", "\u2013", " -", " (-)", "(?)", "\uff1f"])
@pytest.mark.parametrize("name", ["Cytosol", "ER", "Midbody"])
def test_a_sign_of_doubt_is_not_part_of_a_name(name, sign):
    for text in (name + sign, f"0|{name}{sign}", sign.strip() + name):
        for read in (read_labels, read_label):
            with pytest.raises(ValueError, match=r"has the sign|unknown label"):
                read(text)
    assert read_labels("Plasma-membrane")[0] == (13,)


@pytest.mark.parametrize("text", ["", " ", "NaN", "NA", "<NA>", "None"])
def test_an_empty_label_says_what_to_do(text):
    for read in (read_labels, read_label):
        with pytest.raises(ValueError, match=rf"the label is ({text.strip() or 'empty'}); write a location, or remove"):
            read(text)


@pytest.mark.parametrize("text", ["0|", "|0", "0||5", "|"])
def test_an_empty_label_beside_others_is_named(text):
    with pytest.raises(ValueError, match=r"there is an empty label next to a \|; remove the \|"):
        read_labels(text)


def test_vectors():
    matrix = label_matrix([(0,), (), (3, 5)])
    assert matrix.shape == (3, 19)
    assert matrix.sum(axis=1).tolist() == [1, 0, 2]


# What eyes without the cones for green and for red see of linear RGB (Machado, Oliveira and Fernandes 2009).
WITHOUT = {
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "none": np.eye(3),
}


@pytest.mark.parametrize(("cones", "apart"), [("none", 20), ("green", 9), ("red", 9)])
def test_locations_are_told_apart_with_any_colour_vision(cones, apart):
    srgb = np.array([[int(location.colour[at : at + 2], 16) for at in (1, 3, 5)] for location in LOCATIONS]) / 255
    seen = (
        np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92) @ np.transpose(WITHOUT[cones])
    ).clip(0, 1)
    lab = xyz2lab(seen @ np.transpose([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]))
    far = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(len(lab))
    nearest = divmod(int(far.argmin()), len(lab))
    assert far.min() > apart, [LOCATIONS[index].name for index in nearest]
