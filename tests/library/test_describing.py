"""The description of a folder of images: layouts by names, a look into a few files, colours with reasons, and YAML."""

import itertools
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml
import zarr

from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.describing.colours import Channel, guess_colours
from hpaloc.describing.configuration import format_description
from hpaloc.describing.description import describe
from hpaloc.describing.listing import DescriptionError, list_images
from hpaloc.describing.looking import look
from hpaloc.describing.naming import find_layouts
from hpaloc.describing.words import meaning
from hpaloc.figures.contact_sheet import draw_contact_sheet
from hpaloc.manifests import MISSING
from hpaloc.scan import scan_collection
from hpaloc.simulate.field import simulate_field

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
GUIDS = [f"{number:08X}-0000-0000-0000-{number:012X}" for number in range(100)]


def names(pattern, **values):
    """Return a pattern filled with every combination of values."""
    combined = itertools.product(*values.values())
    return [pattern.format(**dict(zip(values, each, strict=True))) for each in combined]


@pytest.fixture(scope="module")
def fields():
    """Channels of 12 bits of two simulated fields."""
    simulated = [simulate_field(f"field-{i}", (14,), i, (512, 512), pixel_size=0.16, dtype="uint16") for i in range(2)]
    return [{colour: image // 16 for colour, image in field.images.items()} for field in simulated]


def described(images):
    """Return the description of images, its text, and the configuration that YAML reads in it."""
    found = describe(str(images))
    text = format_description(found, "results/description")
    return found, text, yaml.safe_load(text)


def comment_of(text, key):
    """Return what the text says beside a key of the configuration."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
    return line.partition("#")[2]


LAYOUTS = {
    "atlas": (names("0a-1c_{c}.png", c=COLOURS) + names("0a-2b_{c}.png", c=COLOURS), "{id}_{colour}.png", 2),
    "one colour": (names("{i}_red.png", i="ab"), "{id}_{colour}.png", 2),
    "capitals": (names("{i}_{c}.png", i="ab", c=("Red", "Green")), "{id}_{channel}.png", 2),
    "ImageXpress": (
        names("Plate 1_{w}_s{s}_w{c}.TIF", w=("A01", "C02"), s="12", c="123"),
        "{plate}_{well}_s{site}_w{channel}.TIF",
        4,
    ),
    "ImageXpress with GUIDs": (
        [
            f"P_{w}_s1_w{c}{guid}.TIF"
            for (w, c), guid in zip(itertools.product(("A01", "C02"), "12"), GUIDS, strict=False)
        ],
        "{plate}_{well}_s{site}_w{channel}" + 36 * "?" + ".TIF",
        2,
    ),
    "Operetta": (
        names("r01c{w}f{f}p{p}-ch{c}sk1fk1fl1.tiff", w=("01", "12"), f=("01", "02"), p=("01", "02"), c="1234"),
        "r{row}c{column}f{site}p{z}-ch{channel}sk1fk1fl1.tiff",
        4,
    ),
    "CellVoyager": (
        [f"#6_{w}_T0001F001L01A{c:02}Z01C{c:02}.tif" for w in ("A01", "B02") for c in (1, 2, 3)],
        "{plate}_{well}_T0001F{site}L01A??Z01C{channel}.tif",
        2,
    ),
    "IN Cell": (
        names("A - {w}(fld {f} wv {c}).tif", w=("01", "02"), f="12", c=("UV - DAPI", "Blue - FITC")),
        "{row} - {column}(fld {site} wv {channel}).tif",
        4,
    ),
    "Leica": (names("ex_S{s}_z{z}_ch{c}.tif", s="12", z=("00", "01"), c=("00", "01")), "{id}_z{z}_ch{channel}.tif", 2),
    "Zeiss": (names("slide{i}_s1z{z}c{c}_ORG.tif", i="12", z="12", c="12"), "{id}z{z}c{channel}_ORG.tif", 2),
    "wavelengths": (names("{i} ä_Alexa Fluor {c}.tif", i="12", c=("488", "568")), "{id}_{channel}.tif", 2),
    "in the middle": (
        names("{a}_{c}_{i}.tif", a=("ctl", "drug"), c=("DAPI", "488"), i="123"),
        "{name}_{channel}_{site}.tif",
        6,
    ),
    "folders of plates": (
        names("{p}/{w}/{i}_{c}.tif", p=("p1", "p2"), w=("A1", "B12"), i="12", c=("DAPI", "GFP")),
        "{plate}/{well}/{site}_{channel}.tif",
        8,
    ),
    "folders of wells": (
        names("{p}/{w}/s{i}_{c}.tif", p=("p1", "p2"), w=("A1", "B12"), i="12", c=("DAPI", "GFP")),
        "{plate}/{well}/{name}_{channel}.tif",
        8,
    ),
    "folders of channels": (names("{c}/img{i}.tif", c=("DAPI", "GFP"), i="123"), "{channel}/{id}.tif", 3),
    "folders of fields": (names("XY{i}/Image_XY{i}_CH{c}.tif", i=("01", "02"), c="123"), "{id}/*_CH{channel}.tif", 2),
    "no channel": (names("img_{i}.ome.tif", i="123"), "{id}.ome.tif", 3),
    "numbers that are wavelengths too": (names("field_{i}.tif", i=range(400, 600)), "{id}.tif", 200),
    "wells": (names("{w}.tif", w=("A01", "B01", "C01", "C02", "C03")), "{id}.tif", 5),
    "z alone": (names("z{i}.zarr", i="123"), "{id}.zarr", 3),
    "brackets": (names("[x] {{a}} {i}_{c}.png", i="12", c=COLOURS), "{id}_{colour}.png", 2),
    "unknown words": (names("{i}_{c}.tif", i="123", c=("actb", "foo")), "{id}_{channel}.tif", 3),
}


@pytest.mark.parametrize(("paths", "pattern", "n_fields"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_channel_is_found_in_names(paths, pattern, n_fields):
    (layout,) = find_layouts(paths).found
    assert layout.pattern == pattern
    assert len(layout.fields) == n_fields
    assert sorted(file.path for file in layout.files) == sorted(paths)


def test_a_channel_has_the_values_of_its_part():
    (layout,) = find_layouts(LAYOUTS["Operetta"][0]).found
    assert layout.values("channel") == ["1", "2", "3", "4"]
    assert layout.values("z") == ["01", "02"]
    assert next(iter(layout.fields)) == ("01", "01", "01")


PLANNED = (
    "atlas",
    "ImageXpress",
    "ImageXpress with GUIDs",
    "Operetta",
    "CellVoyager",
    "Leica",
    "Zeiss",
    "in the middle",
)
PLANNED += ("folders of plates", "folders of channels", "folders of fields", "brackets", "unknown words")


def test_braces_in_names_are_no_parts():
    (layout,) = find_layouts(names("p{{x}}/{i}_{c}.png", i="ab", c=COLOURS)).found
    assert (layout.pattern, layout.own_parts) == ("p{{x}}/{id}_{colour}.png", ["id"])


@pytest.mark.parametrize("name", PLANNED)
def test_planning_finds_the_fields_that_are_described(tmp_path, name):
    thumbnail = f"P_A01_s1_w1_thumb{GUIDS[-1]}.tif"
    for path in (*LAYOUTS[name][0], *([thumbnail] if name == "ImageXpress with GUIDs" else [])):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found, _, config = described(tmp_path)
    scan = scan_collection("new", complete(config))
    assert {row.id for row in scan.rows} == {found.field_name(values) for values in found.layout.fields}
    assert len(scan.rows) == LAYOUTS[name][2]
    assert not any(MISSING in text for text in scan.tables.values())


def test_pictures_that_are_no_channels_are_set_apart_and_the_largest_layout_comes_first():
    thumbs = names("P_A01_s1_w{c}_thumb{guid}.tif", c="12", guid=GUIDS[:1])
    channels, others = names("{i}_{c}.png", i="abc", c=COLOURS), names("{i}.tif", i="xyz")
    layouts = find_layouts([*others, "a_blue_red_green.jpg", "b_merge.png", *thumbs, "a_cellmask.png", *channels])
    assert [(layout.pattern, len(layout.files)) for layout in layouts.found] == [
        ("{id}_{colour}.png", 12),
        ("{id}.tif", 3),
    ]
    assert layouts.merged == ["a_blue_red_green.jpg", "b_merge.png"]
    assert layouts.thumbnails == [*thumbs, "a_cellmask.png"]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("DAPI", "blue"),
        ("Hoechst 33342", "blue"),
        ("405", "blue"),
        ("EGFP", "green"),
        ("Alexa Fluor 488", "green"),
        ("Tubulin-488", "red"),
        ("TxRed", "red"),
        ("Alexa568", "red"),
        ("anti-Calnexin", "yellow"),
        ("ER", "yellow"),
        ("Cy5", "yellow"),
        ("far red", "yellow"),
        ("UV - DAPI", "blue"),
        ("Brightfield", None),
        ("c:1/4 z:1/5 - GFP", "green"),
    ],
)
def test_the_name_of_a_channel_says_its_colour(name, colour):
    assert meaning(name).colour == colour


@pytest.mark.parametrize("name", ["w1", "Channel 2", "1", "layer", "", "4881"])
def test_other_names_say_nothing(name):
    assert meaning(name) is None


def guessed(*called):
    colours = guess_colours([Channel(name, [name]) for name in called], 0.08)
    return {colour: guess.channel.said if guess.channel else None for colour, guess in colours.of.items()}, colours


def test_stains_count_before_light_and_each_channel_has_one_colour():
    said, colours = guessed("Cy5", "tubulin 647", "DAPI", "GFP")
    assert said == {"red": "tubulin 647", "green": "GFP", "blue": "DAPI", "yellow": "Cy5"}
    assert [colour for colour in COLOURS if colours.of[colour].sure] == ["red", "blue"]


def test_what_is_left_is_a_guess_the_protein_first_and_the_rest_is_null():
    said, colours = guessed("DAPI", "w2", "DIC")
    assert said == {"red": None, "green": "w2", "blue": "DAPI", "yellow": None}
    assert not colours.of["green"].sure
    assert [(channel.said, reason) for channel, reason in colours.unused] == [
        ("DIC", "its name says 'dic' (transmitted light)")
    ]


def test_there_is_a_protein_if_there_is_a_channel_for_it():
    said, colours = guessed("DAPI", "mCherry")
    assert said == {"red": None, "green": "mCherry", "blue": "DAPI", "yellow": None}
    assert not colours.of["green"].sure


def test_nuclei_are_told_by_picture(tmp_path, fields):
    for number, field in enumerate(fields):
        pages = np.stack([field[colour] for colour in ("yellow", "red", "blue", "green")])
        tifffile.imwrite(tmp_path / f"{number}.tif", pages, photometric="minisblack")
    _, text, config = described(tmp_path)
    assert config["collections"]["new"]["channels"]["blue"] == 2
    assert "CHECK: by its picture" in comment_of(text, "blue")
    assert "CHECK: a guess" in comment_of(text, "green")
    # Simulated nuclei are smaller than usual ones.
    assert 0.1 < config["pixel_size"] < 0.3


def write_ome(path, field, order, called, **metadata):
    pages = np.stack([field[colour] for colour in order])
    tifffile.imwrite(
        path,
        pages,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": called, **metadata.pop("channel", {})}, **metadata},
    )


def test_an_ome_tiff_tells_channels_pixel_size_and_depth(tmp_path, fields):
    size = {"PhysicalSizeX": 160, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 160, "PhysicalSizeYUnit": "nm"}
    for number, field in enumerate(fields):
        called = ["Hoechst", "Calnexin", "Alexa 568", "GFP"]
        write_ome(tmp_path / f"cell {number} ü.ome.tif", field, ("blue", "yellow", "red", "green"), called, **size)
    _, text, config = described(tmp_path)
    assert config == {
        "collections": {
            "new": {
                "images": f"{tmp_path}/{{id}}.ome.tif",
                "channels": {"red": 2, "green": 3, "blue": 0, "yellow": 1},
            }
        },
        "pixel_size": "file",
        "model": {"path": "models/demo"},
    }
    assert "2 files of 2 fields" in text
    assert "512 x 512 px" in text
    assert "so 12 bits in 16" in text
    assert "0.16 µm, as the files say" in text
    assert "'hoechst' (a stain of nuclei)" in comment_of(text, "blue")
    assert "CHECK" in comment_of(text, "red")


def test_the_light_of_a_channel_counts_if_its_name_says_nothing(tmp_path, fields):
    light = {"EmissionWavelength": [450, 525, 590, 670], "EmissionWavelengthUnit": ["nm"] * 4}
    write_ome(tmp_path / "a.ome.tif", fields[0], ("blue", "green", "red", "yellow"), list("abcd"), channel=light)
    _, text, config = described(tmp_path)
    assert config["collections"]["new"]["channels"] == {"blue": 0, "green": 1, "red": 2, "yellow": 3}
    assert "450 nm" in comment_of(text, "blue")


def test_a_stack_is_projected_and_a_time_is_chosen(tmp_path, fields):
    planes = np.stack([np.stack([fields[0][colour] // (z + 1) for colour in ("blue", "green")]) for z in range(3)])
    labels = {"axes": "TZCYX", "Labels": ["DAPI", "GFP"] * 6}
    tifffile.imwrite(tmp_path / "a.tif", np.stack([planes, planes // 2]), imagej=True, metadata=labels)
    found, text, config = described(tmp_path)
    assert config["collections"]["new"] == {
        "images": f"{tmp_path}/{{id}}.tif",
        "channels": {"red": None, "green": 1, "blue": 0, "yellow": None},
        "time": 0,
        "project": "max",
    }
    assert "2 time points, 3 planes along z, 2 channels" in text
    # What is shown is what would be read.
    assert np.array_equal(found.channels[0].pictures["a"].small, fields[0]["blue"].astype(np.float32))


def test_planes_in_files_of_their_own_are_joined(tmp_path):
    for name in names("{i}_z{z}_t{t}_ch{c}.tif", i="ab", z=("00", "01", "02"), t=("01", "02"), c=("00", "01")):
        tifffile.imwrite(tmp_path / name, np.zeros((32, 32), np.uint8))
    _, _, config = described(tmp_path)
    new = config["collections"]["new"]
    assert new["images"] == f"{tmp_path}/{{id}}_z{{z}}_t{{time}}_ch{{channel}}.tif"
    assert (new["project"], new["time"]) == ("max", 1)


@pytest.mark.parametrize("alpha", [False, True])
def test_the_samples_of_an_rgb_image_are_channels_without_its_opacity(tmp_path, fields, alpha):
    samples = [fields[0][colour] // 16 for colour in ("blue", "green", "red")]
    opaque = [np.full_like(samples[0], 255)] * alpha
    cv2.imwrite(str(tmp_path / "a b.png"), np.dstack([*samples, *opaque]).astype(np.uint8))
    found, text, config = described(tmp_path)
    assert config["collections"]["new"]["channels"] == {"red": 0, "green": 1, "blue": 2, "yellow": None}
    assert len(found.channels) == 3
    assert ("opacity" in text) == alpha


def test_tinted_files_of_one_colour_are_one_channel(tmp_path, fields):
    for colour, samples in (("blue", [0]), ("yellow", [1, 2])):
        image = np.zeros((512, 512, 3), np.uint8)
        image[..., samples] = fields[0][colour][..., None] // 16
        cv2.imwrite(str(tmp_path / f"a_w{len(samples)}.jpg"), image)
    found, _, config = described(tmp_path)
    assert config["collections"]["new"]["channels"] == {"red": None, "green": None, "blue": 1, "yellow": 2}
    assert found.looks[0].tint == "blue"


def write_zarr(path, image, labels):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=image, chunks=(1, *image.shape[1:]))
    axes = [{"name": "c"}, *({"name": name, "unit": "micrometer"} for name in "yx")]
    scale = [{"type": "scale", "scale": [1, 0.3, 0.3]}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs["omero"] = {"channels": [{"label": label} for label in labels]}


def test_an_ome_zarr_is_one_file_alone_in_folders_and_in_plates(tmp_path, fields):
    image = np.stack([fields[0]["green"], fields[0]["blue"]])
    write_zarr(tmp_path / "f1.ome.zarr", image, ["protein", "DNA"])
    for images, pattern in ((tmp_path, "{id}.ome.zarr"), (tmp_path / "f1.ome.zarr", "{id}.ome.zarr")):
        _, _, config = described(images)
        assert config["collections"]["new"]["images"] == f"{tmp_path}/{pattern}"
        assert config["collections"]["new"]["channels"] == {"red": None, "green": 0, "blue": 1, "yellow": None}
        assert config["pixel_size"] == "file"
    plate = tmp_path / "plate.ome.zarr"
    zarr.open_group(str(plate), mode="w", zarr_format=2).attrs["plate"] = {"wells": []}
    for well in ("A/1", "B/2"):
        zarr.open_group(str(plate / well[0]), mode="w", zarr_format=2)
        zarr.open_group(str(plate / well), mode="w", zarr_format=2).attrs["well"] = {"images": []}
        write_zarr(plate / well / "0", image, ["protein", "DNA"])
    assert list_images(str(plate)).paths == ["A/1/0", "B/2/0"]


def test_files_that_cannot_be_read_are_named_and_others_are_looked_at(tmp_path, fields):
    for number in range(9):
        for colour in COLOURS:
            tifffile.imwrite(tmp_path / f"f{number}_{colour}.tif", fields[0][colour])
    for number in range(0, 9, 2):
        for colour in COLOURS:
            (tmp_path / f"f{number}_{colour}.tif").write_bytes(b"II" + struct.pack("<HI", 42, 9999))
    tifffile.imwrite(tmp_path / "f1_red.tif", fields[0]["red"][:100])
    (tmp_path / "f3_red.tif").unlink()
    found, text, config = described(tmp_path)
    assert len(found.seen) == 3
    assert f"{tmp_path}/f0_red.tif: " in text
    assert "16 more files cannot be read" in text
    assert "1 of 9 fields have fewer than 4 files, such as f3" in text
    assert "the channels of the field f1 differ in size (512 x 100 px, 512 x 512 px)" in text
    assert "channels" not in config["collections"]["new"]


def test_a_field_whose_files_are_named_by_the_colour_alone_is_called_by_its_folder(tmp_path, fields):
    (tmp_path / "A01").mkdir()
    for colour, image in fields[0].items():
        tifffile.imwrite(tmp_path / "A01" / f"{colour}.tif", image if colour == "red" else image[:100])
    found, text, _ = described(tmp_path / "A01")
    assert [field.name for field in found.seen] == ["A01"]
    assert "the channels of the field A01 differ in size" in text


def test_of_many_files_only_a_few_are_opened(tmp_path):
    for name in names("{i}_{c}.png", i=range(300), c=COLOURS):
        (tmp_path / name).touch()
    found, text, _ = described(tmp_path)
    assert len(found.unreadable) == 48
    assert "1,200 files of 300 fields" in text
    assert "no file could be read" in text


@pytest.mark.parametrize("words", [("left", "right"), ("DAPI", "GFP")])
def test_files_of_several_channels_have_them_whatever_their_names_say(tmp_path, fields, words):
    for name in names("{i}_{word}.ome.tif", i="ab", word=words):
        write_ome(tmp_path / name, fields[0], ("blue", "green"), ["Hoechst", "EGFP"])
    _, text, config = described(tmp_path)
    assert config["collections"]["new"]["images"] == f"{tmp_path}/{{id}}.ome.tif"
    assert config["collections"]["new"]["channels"] == {"red": None, "green": 1, "blue": 0, "yellow": None}
    assert "4 files of 4 fields" in text


def test_pages_of_a_file_whose_name_says_its_channel_are_planes(tmp_path, fields):
    for colour in COLOURS:
        pages = np.stack([fields[0][colour] // (z + 1) for z in range(3)])
        tifffile.imwrite(tmp_path / f"a_{colour}.tif", pages, photometric="minisblack")
    _, text, config = described(tmp_path)
    assert config["collections"]["new"] == {"images": f"{tmp_path}/{{id}}_{{colour}}.tif", "project": "max"}
    assert "3 planes along z" in text


@pytest.mark.parametrize(
    ("present", "said"),
    [
        (("blue", "green", "red"), []),
        (("blue", "green"), ["a model that sees red cannot predict"]),
        (("red", "yellow", "green"), ["no channel of nuclei (blue)"]),
        (("red", "yellow", "blue"), ["no channel of the protein (green)"]),
    ],
)
def test_what_a_missing_colour_means_is_said(tmp_path, present, said):
    for name in names("{i}_{c}.png", i="ab", c=present):
        cv2.imwrite(str(tmp_path / name), np.zeros((64, 64), np.uint8))
    _, text, _ = described(tmp_path)
    every = ("a model that sees red cannot predict", "no channel of nuclei (blue)", "no channel of the protein (green)")
    assert [sentence for sentence in every if sentence in text] == said


def test_of_many_channels_the_first_are_looked_at(tmp_path):
    spectrum = np.zeros((32, 40, 40), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", spectrum, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    found, text, _ = described(tmp_path)
    assert len(found.channels) == 10
    assert "of 32 channels, only the first 10 were looked at" in text


def test_fields_of_different_channels_are_said_to_be(tmp_path):
    for name in ("a_DAPI.png", "a_GFP.png", "b_DAPI.png", "b_Cy5.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((64, 64), np.uint8))
    assert "no field has all channels" in described(tmp_path)[1]


def test_files_of_microscopes_are_left_to_the_rule_that_imports(tmp_path):
    for number in range(3):
        (tmp_path / f"exp {number}.czi").touch()
    _, text, config = described(tmp_path)
    assert config["collections"]["new"]["channels"] == dict.fromkeys(COLOURS)
    assert "rule import_images reads them" in text
    assert "FILL IN" in comment_of(text, "green")
    assert config["pixel_size"] == "file"


def test_names_are_quoted_and_brackets_mean_themselves(tmp_path):
    folder = tmp_path / "a [b] {c}: #d"
    folder.mkdir()
    for name in names("*{i}_{c}.png", i=("1", 'x"y'), c=COLOURS):
        cv2.imwrite(str(folder / name), np.zeros((32, 32), np.uint8))
    _, _, config = described(folder)
    assert config["collections"]["new"]["images"] == f"{tmp_path}/a [[]b] {{{{c}}}}: #d/{{id}}_{{colour}}.png"


def test_a_folder_may_be_the_field(tmp_path):
    (tmp_path / "F1").mkdir()
    for colour in COLOURS:
        cv2.imwrite(str(tmp_path / "F1" / f"{colour}.png"), np.zeros((32, 32), np.uint8))
    _, text, config = described(tmp_path / "F1")
    assert config["collections"]["new"]["images"] == f"{tmp_path}/{{id}}/{{colour}}.png"
    assert "as in F1" in text


@pytest.mark.parametrize("pattern", ["*_red.png", "{id}_red.png", "[ab]*_red.png"])
def test_a_pattern_names_some_files(tmp_path, pattern):
    for name in names("{i}_{c}.png", i="ab", c=COLOURS):
        (tmp_path / name).touch()
    listing = list_images(f"{tmp_path}/{pattern}")
    assert (listing.folder, listing.paths) == (str(tmp_path), ["a_red.png", "b_red.png"])


def test_links_hidden_files_and_deep_folders_do_no_harm(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / ".b.png").touch()
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "up").symlink_to("..")
    deep = tmp_path.joinpath(*"abcdefghijklm")
    deep.mkdir(parents=True)
    (deep / "c.png").touch()
    listing = list_images(str(tmp_path))
    assert listing.paths == ["a.png", "itself.png"]
    assert not listing.complete


def test_a_folder_without_images_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(DescriptionError, match=r"no image in .*, which has no files; name a folder of PNG"):
        describe(str(tmp_path))
    (tmp_path / "a.txt").touch()
    with pytest.raises(DescriptionError, match=r"no image in .* \(but 1 x \.txt\)"):
        describe(str(tmp_path))
    with pytest.raises(DescriptionError, match=r"no such file or folder: .*absent"):
        describe(str(tmp_path / "absent"))


def test_the_contact_sheet_is_a_png_that_goes_when_nothing_can_be_shown(tmp_path, fields):
    (tmp_path / "images").mkdir()
    write_ome(tmp_path / "images/a.ome.tif", fields[0], ("blue", "green", "red"), ["DAPI", "GFP", "?"])
    sheet = tmp_path / "out/contact_sheet.png"
    sheet.parent.mkdir()
    draw_contact_sheet(describe(str(tmp_path / "images")), sheet)
    picture = cv2.imread(str(sheet))
    height, width, _ = picture.shape
    assert width > 2 * height
    # Pictures are grey, and the words of a colour are in it.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 256
    assert [path.name for path in sheet.parent.iterdir()] == ["contact_sheet.png"]
    (tmp_path / "images/a.ome.tif").write_bytes(b"II")
    draw_contact_sheet(describe(str(tmp_path / "images")), sheet)
    assert not sheet.exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real images")
@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("hpa-512/images", "{id}_{colour}.png"),
        ("hpa-2021", "images/{id}_{colour}.png"),
        ("hpa-public-jpg", "{id}_{colour}.jpg"),
    ],
)
def test_the_folders_of_the_atlas_are_recognised(folder, pattern):
    layouts = find_layouts(list_images(str(REAL / folder)).paths)
    assert layouts.found[0].pattern == pattern


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real images")
def test_nuclei_of_real_fields_are_told_by_picture():
    files = sorted((REAL / "hpa-512/images").glob("*_blue.png"))[::20]
    channels = [
        Channel(
            colour, [], [], {path.name: look(str(path).replace("blue", colour), True).pictures[0] for path in files}
        )
        for colour in ("yellow", "green", "blue", "red")
    ]
    guess = guess_colours(channels, None).of["blue"]
    assert guess.channel.said == "blue"
    assert "by its picture" in guess.reason


def test_the_first_and_the_last_fields_are_shown(tmp_path, fields):
    for well in ("B02", "B03", "C07"):
        for site, images in enumerate(fields, 1):
            for number, image in enumerate(images.values(), 1):
                tifffile.imwrite(tmp_path / f"P1_{well}_s{site}_w{number}.TIF", image)
    found, text, _ = described(tmp_path)
    assert [field.name for field in found.seen] == ["P1_B02_1", "P1_B03_1", "P1_B03_2", "P1_C07_2"]
    assert text.endswith("# predict: {pool_by: [plate, well]}\n")


def test_the_calls_of_a_well_are_of_all_its_sites(tmp_path):
    for path in LAYOUTS["folders of wells"][0]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert described(tmp_path)[1].endswith("# predict: {pool_by: [plate, well]}\n")
