"""The atlas's XML: each field is listed or left out for a reason, and a sentence names each damaged file."""

import gzip
import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from atlas_xml import SITE, address, antibody, data_of, entry, whole, write_atlas
from failing_server import failing_server
from workflow_runs import ROOT, read_rows

from hpaloc.atlas.entries import AtlasError
from hpaloc.atlas.listing import AtlasSettings, read_atlas
from hpaloc.atlas.sheets import atlas_lines, split_fields, write_atlas_sheets
from hpaloc.atlas_estimate import estimate_lines
from hpaloc.atlas_planning import find_xml, plan_atlas
from hpaloc.classes import NAMES, parse_labels
from hpaloc.config import ConfigError, complete
from hpaloc.download import DownloadError, PassingError, RetryPolicy
from hpaloc.grouping import group_fields

LIST = ROOT.parent / "shared/data/atlas/images.csv"
EVERY = AtlasSettings(reliability=("enhanced", "supported", "approved", "uncertain"), test_fraction=0.0)
QUICK = RetryPolicy(tries=2, first_wait=0.01, timeout=2.0)


@pytest.fixture
def write(tmp_path):
    def write(text, name="atlas.xml"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.fixture
def listed(write):
    """Return {ID: field} of an atlas with these genes."""

    def listed(*entries, settings=EVERY):
        return {one.id: one for one in read_atlas([write(whole(*entries))], settings).fields.values()}

    return listed


@pytest.fixture
def sheets(write, tmp_path):
    """Return the rows of both sheets, and the summary, of an atlas with these genes."""

    def sheets(*entries, settings=EVERY):
        summary = write_atlas_sheets([write(whole(*entries))], settings, tmp_path / "out")
        return [*read_rows(tmp_path / "out/train.csv"), *read_rows(tmp_path / "out/test.csv")], summary

    return sheets


def gene(name, number, *places, plate=1, line="U-2 OS", **options):
    """Return a gene with one antibody, one field per list of locations."""
    data = [
        data_of(line, locations, [address(number, f"{plate}_A{at + 1}_1")], "negative" if not locations else "")
        for at, locations in enumerate(places)
    ]
    return entry(name, antibody(f"HPA{number:06d}", *data, **options))


def test_a_row_has_what_training_and_download_need(sheets):
    (row,), summary = sheets(gene("RAB8A", 41945, ["cytosol", "Nucleus but not nucleoli"]))
    assert row == {
        "ID": "1_A1_1",
        "Label": "0|16",
        "antibody": "HPA041945",
        "gene": "RAB8A",
        "gene_group": "RAB8A",
        "cell_line": "U-2 OS",
        "reliability": "supported",
        **{f"url_{colour}": f"{SITE}/41945/1_A1_1_{colour}.jpg" for colour in ("red", "green", "blue", "yellow")},
    }
    assert summary["train"]["classes"]["Cytosol"] == {"fields": 1, "only_label": 0, "antibodies": 1}


@pytest.mark.parametrize(
    "url",
    [
        f"{SITE}/7/1_A1_1_blue_red_green.jpg",
        f"{SITE}/7/1_A1_1_blue_red_green_yellow.jpg",
        f"{SITE}/7/1_A1_1_green.jpg",
        f"{SITE}/7/1_A1_1_green.tif.gz",
        "http://images.proteinatlas.org/7/1_A1_1_blue_red_green.jpg",
        "http://v18.proteinatlas.org/images/7/1_A1_1_blue_red_green.jpg",
        "https://www.proteinatlas.org/images/7/1_A1_1_blue_red_green.jpg",
        f"{SITE}/7/1_A1_1_cr5b1d21ea3f_blue_red_green.jpg",
    ],
)
def test_the_addresses_of_all_releases_are_those_of_single_colours(listed, url):
    found = listed(entry("A", antibody("HPA000007", data_of("A-431", ["Nucleoli"], [url]))))
    assert found["1_A1_1"].address == f"{SITE}/7/1_A1_1"


def test_single_colours_and_composites_of_a_field_are_one_field(sheets):
    urls = [address(7, "1_A1_1", colours) for colours in ("blue_red_green", "red", "green", "blue", "yellow")]
    found, summary = sheets(entry("A", antibody("HPA000007", data_of("A-431", ["Nucleoli"], urls))))
    assert len(found) == 1
    assert summary["fields"] == 1


# Names as releases from 2008 to 2025 wrote them.
LOCATIONS = {
    0: ["Nucleus", "Nucleus but not nucleoli", "nucleoplasm", "Nucleoplasm"],
    1: ["Nuclear membrane"],
    2: ["Nucleoli", "Nucleolus", "Nucleoli rim"],
    3: ["Nucleoli (Fibrillar center)", "Nucleoli fibrillar center", "Fibrillar center"],
    4: ["Nuclear speckles"],
    5: ["Nuclear bodies"],
    6: ["Endoplasmic reticulum"],
    7: ["Golgi apparatus"],
    8: ["Cytoskeleton (Intermediate filaments)", "Intermediate filaments"],
    9: ["Cytoskeleton (Actin filaments)", "Actin filaments", "Focal Adhesions", "Focal adhesion sites"],
    10: ["Cytoskeleton (Microtubules)", "Microtubules"],
    11: ["Mitotic spindle"],
    12: ["Centrosome", "Microtubule organizing center", "Centriolar satellite"],
    13: ["Plasma membrane", "Cell Junctions"],
    14: ["Mitochondria"],
    15: ["Aggresome"],
    16: ["Cytosol", "Cytoplasm"],
    17: ["Vesicles", "Peroxisomes", "Endosomes", "Lysosomes", "Lipid droplets", "Cytoplasmic bodies"],
}
NO_CLASS = [
    *("Rods & Rings", "Midbody", "Midbody ring", "Cleavage furrow", "Mitotic chromosome", "Kinetochore"),
    *("Cytoskeleton (Cytokinetic bridge)", "Cytokinetic bridge", "Cytoskeleton (Microtubule end)", "Microtubule ends"),
    *("Basal body", "Primary cilium", "Primary cilium tip", "Primary cilium transition zone", "Acrosome", "Annulus"),
    *("Flagellar centriole", "Mid piece", "Principal piece", "End piece", "Equatorial segment", "Connecting piece"),
    *("Calyx", "Perinuclear theca"),
]


def test_the_names_of_locations_of_every_release_have_their_class(sheets):
    places = [(label, name) for label, names in LOCATIONS.items() for name in names]
    genes = [gene(f"G{at}", at + 1, [name], plate=at + 1) for at, (_, name) in enumerate(places)]
    found, summary = sheets(*genes)
    by_plate = {row["ID"]: row["Label"] for row in found}
    assert by_plate == {f"{at + 1}_A1_1": str(label) for at, (label, _) in enumerate(places)}
    assert summary["unknown_locations"] == {}


def test_names_without_a_class_and_unknown_names_are_left_out_and_counted(sheets):
    genes = [gene(f"G{at}", at + 1, [name], plate=at + 1) for at, name in enumerate(NO_CLASS)]
    genes += [gene("H", 900, ["Nucleoli", "Rods & Rings"], ["Nucleoli", "Blobs"], ["Blobs"], ["7"], plate=900)]
    found, summary = sheets(*genes)
    assert {row["ID"]: row["Label"] for row in found} == {"900_A1_1": "2", "900_A2_1": "2"}
    assert sum(summary["locations_without_class"].values()) == len(NO_CLASS) + 1
    assert summary["unknown_locations"] == {"Blobs": 2, "7": 1}
    assert summary["left_out"] == {"no location with a class": len(NO_CLASS) + 2}
    assert "atlas: unknown names of locations: Blobs (2), 7 (1)" in atlas_lines(summary)


def test_a_field_without_location_is_negative_only_if_the_staining_was(sheets):
    data = [
        data_of("A-431", [], [address(7, f"1_A{at}_1")], level)
        for at, level in enumerate(("negative", "moderate", ""), 1)
    ]
    found, summary = sheets(entry("A", antibody("HPA000007", *data)))
    assert [(row["ID"], row["Label"]) for row in found] == [("1_A1_1", "18")]
    assert summary["left_out"] == {"no location": 2}


def test_other_assays_and_images_of_other_names_are_left_out(sheets):
    cilium = 'type="human" subtype="ciliated cell lines"'
    found, summary = sheets(
        entry("A", antibody("HPA000007", data_of("RPTEC", ["Nucleoli"], [address(7, "1_A1_1")]), assay=cilium)),
        entry("B", antibody("HPA000008", data_of("3T3", ["Nucleoli"], [address(8, "2_A1_1")]), assay='type="mouse"')),
        entry("C", antibody("HPA000009", data_of("A-431", ["Nucleoli"], [address(9, "si12_3"), address(9, "3_A1_1")]))),
    )
    assert [row["ID"] for row in found] == ["3_A1_1"]
    assert summary["left_out"] == {"assay: ciliated cell lines": 1, "assay: mouse": 1}
    assert summary["first_of_other_names"] == [address(9, "si12_3")]


def test_other_forms_of_the_xml_are_read_too(listed):
    data = data_of("A-431", ["Nucleoli"], [address(7, "1_A1_1")])
    old = (
        '<entry><name>A</name><antibody id="CAB000007"><subcellularLocation technology="IF">'
        f'<verification type="validation">supportive</verification>{data}</subcellularLocation></antibody></entry>'
    )
    own = (
        '<entry><name>B</name><antibody id="HPA000008"><cellExpression technology="ICC/IF">'
        '<verification type="validation">uncertain</verification><subAssay type="human">'
        f'<verification type="validation">Enhanced</verification>{data.replace("/7/1_", "/8/2_")}</subAssay>'
        "</cellExpression></antibody></entry>"
    )
    summary = (
        '<entry><name>C</name><cellExpression technology="ICC/IF">'
        + data.replace("/7/1_", "/9/3_")
        + "</cellExpression></entry>"
    )
    found = listed(old, own, summary)
    assert {id: (one.antibody, one.reliability) for id, one in found.items()} == {
        "1_A1_1": ("CAB000007", "supported"),
        "2_A1_1": ("HPA000008", "enhanced"),
    }


@pytest.mark.parametrize(
    ("old", "present"), [("validated", "enhanced"), ("Validated", "enhanced"), ("supportive", "supported")]
)
def test_levels_have_their_present_names_in_old_releases(listed, old, present):
    genes = [gene("A", 7, ["Nucleoli"], plate=7, reliability=old), gene("B", 8, ["Nucleoli"], plate=8)]
    # The level of a location too.
    data = data_of("A-431", ["Nucleoli"], [address(9, "9_A1_1")]).replace("<location>", f'<location status="{old}">')
    genes.append(entry("C", antibody("HPA000009", data, reliability="approved")))
    found = listed(*genes, settings=replace(EVERY, reliability=(present,)))
    assert {id: one.reliability for id, one in found.items() if one.antibody != "HPA000008"} == {"7_A1_1": present}
    found = listed(*genes, settings=replace(EVERY, reliability=("approved",)))
    assert not found


def test_the_reliability_is_that_of_the_gene_if_its_antibodies_have_none(listed):
    of_gene = (
        '<cellExpression technology="ICC/IF"><verification type="reliability">Approved</verification></cellExpression>'
    )
    data = data_of("A-431", ["Nucleoli"], [address(7, "1_A1_1")])
    found = listed(entry("A", antibody("HPA000007", data, reliability=""), bulk=of_gene))
    assert found["1_A1_1"].reliability == "approved"


def test_what_is_not_needed_may_be_nested_in_itself(listed):
    bulk = "<xref><xref><name>B</name></xref><antibody id='X'/></xref><rnaExpression><data/></rnaExpression>"
    data = data_of("A-431", ["Nucleoli"], [address(7, "1_A1_1")])
    found = listed(entry("A", antibody("HPA000007", data), bulk=bulk))
    assert found["1_A1_1"].genes == ("A",)


@pytest.mark.parametrize("prefix", ["", "h:"])
def test_a_namespace_does_not_count(write, prefix):
    text = whole(gene("A", 7, ["Nucleoli"])).replace("</", f"</{prefix}").replace("<", f"<{prefix}")
    text = text.replace(f"<{prefix}/{prefix}", f"</{prefix}").replace(f"<{prefix}?xml", "<?xml")
    space = 'xmlns="urn:x"' if not prefix else 'xmlns:h="urn:x"'
    text = text.replace("proteinAtlas schemaVersion", f"proteinAtlas {space} schemaVersion")
    assert len(read_atlas([write(text)], EVERY).fields) == 1


def test_what_is_asked_for_is_listed_and_the_rest_is_counted(sheets):
    genes = [
        gene("A", 1, ["Nucleoli"], plate=1),
        gene("B", 2, ["Nucleoli"], plate=2, reliability="uncertain"),
        gene("C", 3, ["Nucleoli"], plate=3, line="A-431"),
        gene("D", 4, ["Nucleoli"], plate=4),
        gene("E", 5, ["Nucleoli"], plate=5),
    ]
    settings = AtlasSettings(
        genes=("a", "ENSGB", "C", "D"), cell_lines=("U2OS",), leave_out=("hpa000004",), test_fraction=0.0
    )
    found, summary = sheets(*genes, settings=settings)
    assert [row["ID"] for row in found] == ["1_A1_1"]
    assert summary["left_out"] == {
        "another cell line": 1,
        "another gene": 1,
        "antibody left out": 1,
        "reliability: uncertain": 1,
    }
    assert sum(summary["left_out"].values()) + len(found) == summary["fields"] == 5


def test_the_level_of_a_location_counts_as_that_of_its_field(sheets):
    data = data_of("A-431", ["Nucleoli"], [address(7, "1_A1_1")]).replace(
        "<assayImage>", '<location status="uncertain">Cytosol</location><assayImage>'
    )
    genes = [entry("A", antibody("HPA000007", data)), gene("B", 8, ["Nucleoli"], plate=2)]
    found, summary = sheets(*genes, settings=AtlasSettings(test_fraction=0.0))
    assert [row["ID"] for row in found] == ["2_A1_1"]
    assert summary["left_out"] == {"reliability: uncertain": 1}


def test_an_antibody_against_several_genes_gives_each_field_once(sheets):
    both = [gene(name, 7, ["Nucleoli", "Midbody", "Blobs"]) for name in ("B", "A")]
    found, summary = sheets(*both)
    assert [(row["ID"], row["gene"]) for row in found] == [("1_A1_1", "A;B")]
    assert summary["fields_of_several_genes"] == 1
    # One field, though two genes list it.
    counted = [summary[key] for key in ("reliability", "locations_without_class", "unknown_locations")]
    assert counted == [{"supported": 1}, {"Midbody": 1}, {"Blobs": 1}]


def test_a_gene_group_holds_the_genes_that_antibodies_link_also_beyond_the_cap(sheets):
    linked = [gene(name, 7, ["Nucleoli"], plate=7) for name in ("C", "B")]
    rest = [gene(name, at, ["Nucleoli"], plate=at) for at, name in enumerate("BCDE", 1)]
    found, _ = sheets(*linked, *rest)
    assert {row["gene"]: row["gene_group"] for row in found} == {"B;C": "B", "B": "B", "C": "B", "D": "D", "E": "E"}
    capped, _ = sheets(*linked, *rest, settings=replace(EVERY, per_class=3, seed=3))
    assert {row["gene"]: row["gene_group"] for row in capped} == {"B": "B", "C": "B", "D": "D"}


@pytest.mark.parametrize("name", ["atlas", "atlas-small"])
def test_the_configurations_split_no_gene_of_several(sheets, name):
    group_by = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())["curation"]["group_by"]
    genes = [gene("A", 7, ["Nucleoli"], plate=7), gene("B", 7, ["Nucleoli"], plate=7)]
    genes += [gene(name, at, ["Nucleoli"], plate=at) for at, name in enumerate("ABC", 1)]
    found, _ = sheets(*genes)
    groups, summary = group_fields(pd.DataFrame(found).rename(columns={"ID": "field"}), group_by)
    assert sorted(zip((row["gene"] for row in found), groups, strict=True)) == [
        ("A", "1_A1_1"),
        ("A;B", "1_A1_1"),
        ("B", "1_A1_1"),
        ("C", "3_A1_1"),
    ]
    assert summary["groups"] == 2


def test_a_field_listed_with_two_label_sets_is_left_out(sheets):
    genes = [gene("A", 7, ["Nucleoli"]), gene("B", 7, ["Cytosol"]), gene("C", 7, ["Nucleoli"])]
    found, summary = sheets(*genes, gene("D", 8, ["Cytosol"], plate=2))
    assert [row["ID"] for row in found] == ["2_A1_1"]
    assert summary["left_out"] == {"listed with different labels or antibodies": 1}


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("other", ["no location", "unknown location", "other assay"])
def test_a_field_that_only_one_of_its_genes_lists_with_labels_is_left_out(sheets, other, turn):
    places = {"no location": [], "unknown location": ["Blobs"], "other assay": ["Nucleoli"]}[other]
    level, assay = "strong" if not places else "", {"assay": 'type="mouse"'} if other == "other assay" else {}
    without = entry("B", antibody("HPA000007", data_of("U-2 OS", places, [address(7, "1_A1_1")], level), **assay))
    found, summary = sheets(*[gene("A", 7, ["Nucleoli"]), without][::turn], gene("D", 8, ["Cytosol"], plate=2))
    assert [row["ID"] for row in found] == ["2_A1_1"]
    assert summary["left_out"] == {"listed with different labels or antibodies": 1}
    assert summary["fields"] == 2


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("asked", [{"genes": ("A", "D")}, {"reliability": ("supported",)}])
def test_a_listing_that_is_not_asked_for_adds_its_gene(sheets, asked, turn):
    both = [gene("A", 7, ["Nucleoli"]), gene("B", 7, ["Nucleoli"], reliability="approved")]
    found, summary = sheets(*both[::turn], gene("D", 8, ["Cytosol"], plate=2), settings=replace(EVERY, **asked))
    assert {row["ID"]: set(row["gene"].split(";")) for row in found} == {"1_A1_1": {"A", "B"}, "2_A1_1": {"D"}}
    assert (summary["left_out"], summary["fields_of_several_genes"]) == ({}, 1)


def test_one_id_of_two_antibodies_is_left_out(sheets):
    found, summary = sheets(gene("A", 7, ["Nucleoli"]), gene("B", 8, ["Nucleoli"]), gene("C", 9, ["Cytosol"], plate=2))
    assert [row["ID"] for row in found] == ["2_A1_1"]
    assert summary["left_out"] == {"one ID of several antibodies": 2}


def many(fields_of):
    """Return genes with one antibody each: {class: number of its genes}, of three fields each."""
    number = itertools.count(1)
    return [
        gene(f"G{at}", at, *[[NAMES[label]] if label != 18 else []] * 3, plate=at)
        for label, genes in fields_of.items()
        for at in itertools.islice(number, genes)
    ]


def test_no_antibody_and_no_gene_is_in_both_parts_and_every_class_is(listed):
    linked = entry(
        "G1", *(antibody(f"HPA{n:06d}", data_of("A-431", ["Nucleoli"], [address(n, f"{n}_A1_1")])) for n in (501, 502))
    )
    found = listed(*many({0: 40, 11: 2, 15: 5}), linked)
    parts = split_fields(found.values(), AtlasSettings(test_fraction=0.2))
    antibodies, genes = (
        [{value for one in parts[part] for value in of(one)} for part in ("train", "test")]
        for of in (lambda one: [one.antibody], lambda one: one.genes)
    )
    assert not antibodies[0] & antibodies[1]
    assert not genes[0] & genes[1]
    counts = Counter(label for one in parts["test"] for label in one.labels)
    assert (counts[0], counts[11], counts[15]) in {(24, 3, 3), (25, 3, 3)}
    assert sum(map(len, parts.values())) == len(found)


@pytest.mark.parametrize(("fraction", "train", "test"), [(0.01, 20, 2), (0.5, 11, 11), (0.99, 2, 20), (0, 22, 0)])
def test_each_part_has_a_group_of_a_class_of_two(listed, fraction, train, test):
    """Of 20 antibodies of one class and two of another; the fields of an antibody, here one, are a group."""
    found = {one.antibody: one for one in listed(*many({0: 20, 2: 2})).values()}
    parts = split_fields(found.values(), AtlasSettings(test_fraction=fraction))
    assert (len(parts["train"]), len(parts["test"])) == (train, test)
    assert fraction == 0 or {one.labels for one in parts["test"]} == {one.labels for one in parts["train"]}


def test_the_cap_takes_many_antibodies_and_fields_of_one_label_first(listed):
    mixed = [gene(f"M{at}", 600 + at, ["Nucleoplasm", "Aggresome"], plate=600 + at) for at in range(6)]
    found = listed(*many({0: 30, 15: 3}), *mixed)
    parts = split_fields(found.values(), AtlasSettings(per_class=10, test_fraction=0.2))
    assert {part: len(own) for part, own in parts.items()} == {"train": 16, "test": 4}
    train = [one for one in parts["train"] if one.labels == (0,)]
    assert len({one.antibody for one in train}) == 8
    rare = [one.labels for one in parts["train"] if 15 in one.labels]
    # All fields of one label are taken before those of two.
    assert rare.count((15,)) >= 6
    assert len(rare) == 8


@pytest.mark.parametrize(
    ("cap", "fraction", "train", "test"),
    [
        (1, 0.2, 2, 0),
        (2, 0.2, 2, 2),
        (2, 0.9, 2, 2),
        (3, 0.1, 4, 2),
        (10, 0.01, 18, 2),
        (10, 0.97, 2, 18),
        (2, 0, 4, 0),
    ],
)
def test_a_small_cap_leaves_a_field_of_each_class_to_both_parts(listed, cap, fraction, train, test):
    parts = split_fields(listed(*many({0: 20, 2: 20})).values(), AtlasSettings(per_class=cap, test_fraction=fraction))
    assert (len(parts["train"]), len(parts["test"])) == (train, test)


def test_the_same_xml_and_seed_give_the_same_bytes_and_another_seed_others(write, tmp_path):
    genes = many({0: 30, 15: 9})
    paths = [write(whole(*genes)), write(whole(*reversed(genes)), "again.xml.gz")]
    texts = []
    for at, (path, seed) in enumerate([(paths[0], 1), (paths[0], 1), (paths[1], 1), (paths[0], 2)]):
        write_atlas_sheets([path], AtlasSettings(per_class=5, seed=seed), tmp_path / str(at))
        texts.append([(tmp_path / str(at) / name).read_bytes() for name in ("train.csv", "test.csv", "summary.json")])
    assert texts[0] == texts[1] == texts[2]
    assert texts[0][0] != texts[3][0]


WHOLE = whole(gene("A", 7, ["Nucleoli"]))
DAMAGED = {
    "cut short": (WHOLE[:-200].encode(), "is not whole XML (unclosed token: line 1, column {}); fetch it again"),
    "gzip cut short": (gzip.compress(WHOLE.encode())[:-30], "is cut short or damaged ("),
    "damaged gzip": (gzip.compress(WHOLE.encode() * 9)[:50] + b"x" * 60, "is cut short or damaged ("),
    "web page": (b"\n<!DOCTYPE html><html><body>503</body></html>", "is a web page (HTML), not the atlas's XML"),
    "empty": (b"", "is empty; fetch it again"),
    "zip": (b"PK\x03\x04....", "is a zip file; unpack it, and name the XML in it"),
    "neither": (b"ID,Label\n", "is neither XML nor gzip (it starts with b'ID,L'); fetch it again"),
    "other xml": (b"<feed><entries/></feed>", "has no entry of a gene (its first element is feed)"),
    "no images": (whole(entry("A")).encode(), "lists no immunofluorescence image (cellExpression) of an antibody"),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", ["atlas.xml", "atlas.xml.gz"])
def test_a_damaged_file_is_told_in_a_sentence_that_names_it(tmp_path, damage, name):
    content, sentence = DAMAGED[damage]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AtlasError) as error:
        write_atlas_sheets([path], EVERY, tmp_path / "out")
    assert str(error.value).startswith(f"atlas XML {path}: {sentence.split('{}')[0]}")
    assert not list((tmp_path / "out").glob("*"))


def test_settings_that_leave_nothing_are_told_with_the_reasons(write, tmp_path):
    path = write(whole(gene("A", 7, ["Nucleoli"], reliability="uncertain"), gene("B", 8, ["Blobs"], plate=2)))
    with pytest.raises(AtlasError) as error:
        write_atlas_sheets([path], AtlasSettings(), tmp_path / "out")
    assert str(error.value) == (
        f"atlas XML {path}: the keys of atlas leave none of its 2 fields: "
        "no location with a class (1); reliability: uncertain (1)"
    )
    with pytest.raises(AtlasError, match=r"atlas\.cell_lines: 'U2-0S' is not in the atlas's XML, which has U-2 OS"):
        read_atlas([path], AtlasSettings(cell_lines=("U2-0S",)))
    with pytest.raises(AtlasError, match=r"is of version 23\.0, but config key atlas\.version is 22"):
        read_atlas([path], AtlasSettings(version=22))


def planned(tmp_path, monkeypatch, **atlas):
    """Plan in ``tmp_path`` and return what was told."""
    monkeypatch.chdir(tmp_path)
    told = []
    collections = {part: {"atlas": part, "labels": True, "download": {}} for part in ("train", "test")}
    plan_atlas(complete({"collections": collections, "atlas": atlas}), told.append)
    return told


def test_planning_reads_the_xml_again_only_if_it_or_a_setting_changed(write, tmp_path, monkeypatch):
    path = write(whole(*many({0: 10, 2: 10})))
    assert planned(tmp_path, monkeypatch, xml=path.name)[0] == "atlas: reading 1 XML file (0.0 MB)"
    made = (tmp_path / "resources/atlas/train.csv").stat().st_mtime_ns
    assert planned(tmp_path, monkeypatch, xml=path.name) == []
    assert planned(tmp_path, monkeypatch, xml=path.name, seed=2)
    write(whole(*many({0: 10, 2: 11})))
    assert planned(tmp_path, monkeypatch, xml=path.name, seed=2)
    assert (tmp_path / "resources/atlas/train.csv").stat().st_mtime_ns != made
    with pytest.raises(AtlasError, match=r"collections\.test\.atlas: no field of the atlas is in the part test"):
        planned(tmp_path, monkeypatch, xml=path.name, test_fraction=0)


def test_a_folder_of_one_file_per_gene_is_the_whole(write, tmp_path):
    (tmp_path / "genes").mkdir()
    genes = many({0: 3, 2: 3})
    for at, text in enumerate(genes):
        write(whole(text), f"genes/G{at}.xml" + ".gz" * (at % 2))
    write_atlas_sheets(find_xml(AtlasSettings(xml="{root}/genes"), str(tmp_path)), EVERY, tmp_path / "a")
    write_atlas_sheets([write(whole(*genes))], EVERY, tmp_path / "b")
    assert (tmp_path / "a/train.csv").read_bytes() == (tmp_path / "b/train.csv").read_bytes()


def test_an_address_is_fetched_once_through_failures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed = gzip.compress(WHOLE.encode())
    with failing_server({"/a.xml.gz": packed, "/A.xml": WHOLE.encode(), "/B.xml": WHOLE.encode()}) as server:
        server.tricks["/a.xml.gz"] = ["cut short"]
        settings = AtlasSettings(xml=server.url + "/a.xml.gz")
        for _ in range(2):
            (path,) = find_xml(settings, ".", QUICK)
            assert path.read_bytes() == packed
        assert len(server.requests) == 2
        # Of one file per gene, one that does not exist is left out.
        genes = AtlasSettings(xml=server.url + "/{gene}.xml", genes=("A", "C"))
        assert [path.name.endswith("_A.xml") for path in find_xml(genes, ".", QUICK)] == [True]
        server.tricks["/b.xml.gz"] = ["page"]
        with pytest.raises(DownloadError, match=r"the response is not XML \(it starts with b'<htm'\)"):
            find_xml(AtlasSettings(xml=server.url + "/b.xml.gz"), ".", QUICK)
        server.tricks["/a.xml"] = [500, 500]
        with pytest.raises(PassingError, match="the server answered 500"):
            find_xml(AtlasSettings(xml=server.url + "/a.xml"), ".", QUICK)


@pytest.mark.parametrize("failure", [DownloadError, PassingError])
def test_a_version_that_cannot_be_fetched_is_told_with_its_key(tmp_path, monkeypatch, failure):
    def refuse(pool, url, *others):
        raise failure(f"{url}: the server answered 404")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hpaloc.atlas_planning.fetch", refuse)
    xml = "https://v26.proteinatlas.org/download/proteinatlas.xml.gz"
    with pytest.raises(failure) as error:
        find_xml(AtlasSettings(version=26), ".", QUICK)
    assert str(error.value) == (
        f"config key atlas.version: {xml}: the server answered 404; if 26 is the present release, leave the key "
        "out, which fetches the present one"
    )
    for settings in (AtlasSettings(xml=xml, version=26), AtlasSettings()):
        with pytest.raises(failure, match=r"^https://.*: the server answered 404$"):
            find_xml(settings, ".", QUICK)


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        ("nowhere.xml", "config key atlas.xml: nowhere.xml: no such file or folder"),
        ("http://example.org/a.xml", "config key atlas.xml: http://example.org/a.xml: only https is allowed"),
        ("{gene}.xml", "config key atlas.xml: has {gene}, but atlas.genes names none; list them (ENSG00000134057)"),
        (".", "config key atlas.xml: the folder . has no file that ends with .xml or .xml.gz"),
    ],
)
def test_a_wrong_place_is_told_with_its_key(tmp_path, monkeypatch, xml, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AtlasError) as error:
        find_xml(AtlasSettings(xml=xml), ".")
    assert str(error.value) == sentence


def test_the_configuration_makes_the_sheet_of_an_atlas_collection():
    of_atlas = {"atlas": "train", "labels": True, "download": {}}
    filled = complete({"collections": {"train": of_atlas}})
    assert filled["collections"]["train"]["sheet"] == "resources/atlas/train.csv"
    # The record of a run has every key.
    assert complete(filled) == filled
    with pytest.raises(ConfigError, match="'sheet' cannot be combined with 'atlas'"):
        complete({"collections": {"train": of_atlas | {"sheet": "mine.csv"}}})
    with pytest.raises(ConfigError, match=r"collections\.train\.labels: the atlas's sheets have other numbers"):
        complete({"collections": {"train": of_atlas | {"labels": "hpa2018"}}})


def test_the_estimate_counts_images_disk_and_hours(write, tmp_path):
    summary = write_atlas_sheets([write(whole(*many({0: 40, 2: 40})))], AtlasSettings(), tmp_path)
    collections = {part: {"atlas": part, "labels": True, "download": {"per_second": 1}} for part in ("train", "test")}
    lines = estimate_lines(complete({"collections": collections}), summary, {"train": 4, "test": 4})
    assert "train: 192 fields of 64 antibodies" in lines
    assert "test: 48 fields of 16 antibodies" in lines
    # 240 fields of four colours, a second each.
    assert "images to download (jpg): 960, about 240 MB" in lines
    assert "download at the polite rate (download.per_second): at least 16 min" in lines
    fewer = estimate_lines(complete({"collections": collections}), summary, {"train": 3, "test": 3})
    assert "images to download (jpg): 720, about 180 MB" in fewer
    # 4,166 cells of three colours and 224 px.
    assert "their decoded tiles, in memory or in the folder train.cache while it trains: about 627 MB" in lines
    copied = {"collections": collections, "curation": {"labels": "all", "oversample": 0.5}}
    taught = estimate_lines(complete(copied), summary, {"train": 4, "test": 4})
    assert any(line.startswith("copies of rare locations (curation.oversample) add") for line in taught)
    assert not any(line.startswith("copies") for line in lines)
    # 240 fields, and half or all of the cells of the 192 that train once more, at 2.17 MB each.
    assert "tiles and training records: about 729 MB" in lines
    assert "tiles and training records: about 937 MB" in taught


SCRIPT = """
import json, resource, sys
from hpaloc.atlas.listing import AtlasSettings
from hpaloc.atlas.sheets import write_atlas_sheets
write_atlas_sheets([sys.argv[1]], AtlasSettings(), sys.argv[2])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))
"""


@pytest.mark.slow
@pytest.mark.skipif(not LIST.is_file(), reason="the list of public images is not beside the repository")
def test_an_atlas_of_true_size_has_the_labels_of_the_list_and_fits_into_half_a_gigabyte(tmp_path):
    path = tmp_path / "atlas.xml.gz"
    genes, images = write_atlas(path, LIST)
    assert (genes >= 20_000, images) == (True, 85_767)
    command = [sys.executable, "-c", SCRIPT, path, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) < 0.5
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    found = {row["ID"]: row["Label"] for part in ("train", "test") for row in read_rows(tmp_path / f"out/{part}.csv")}
    known = {row["ID"]: row for row in read_rows(LIST)}
    assert len(found) + sum(summary["left_out"].values()) == summary["fields"] == images
    # Left out are those of which the list has no label.
    assert {row["Label2021"] or row["LabelFromV18"] for id, row in known.items() if id not in found} == {""}
    listed = [row for row in known.values() if row["Label2021"]]
    assert len(listed) == 67_579
    assert not [row for row in listed if parse_labels(found[row["ID"]]) != parse_labels(row["Label2021"])]
    # The atlas revised its annotations: the labels of a release are not those of another.
    both = [row for row in listed if row["LabelFromV18"]]
    revised = [row for row in both if parse_labels(found[row["ID"]]) != parse_labels(row["LabelFromV18"])]
    assert (len(both), len(revised)) == (54_749, 23_632)
