"""snakemake describe: it prints a configuration that plans, needs none itself, and writes into its folder alone."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
import yaml
from forked_plans import plan
from stand_in_models import write_stand_in
from test_module import write_outer
from workflow_runs import ROOT, write_field, write_sheet

from hpaloc.classes import COLOURS
from hpaloc.manifests import MISSING
from hpaloc.simulate.field import simulate_field


def describe(folder, images, *arguments, **options):
    """Run the target in ``folder`` as a person does, and return the finished process."""
    words = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        folder,
        "--cores",
        "1",
    ]
    words += ["describe", "--config", f"images={images}", *arguments]
    return subprocess.run(words, capture_output=True, encoding="utf-8", check=False, cwd=ROOT, **options)


def written(folder):
    """Return the files below a folder, without those of Snakemake and the images."""
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {str(path) for path in paths if path.parts[0] not in (".snakemake", "images")}


def test_the_configuration_is_printed_each_time_and_written_into_one_folder(tmp_path):
    (tmp_path / "images").mkdir()
    write_field(tmp_path / "images", "größer 1", (0,), 1, (256, 256))
    done = describe(tmp_path, "images")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (tmp_path / "results/description/config.yaml").read_text().strip()
    assert yaml.safe_load(done.stdout)["collections"]["new"]["images"] == "images/{id}_{colour}.png"
    of_description = {f"results/description/{name}" for name in ("config.yaml", "contact_sheet.png", "describe.log")}
    assert written(tmp_path) == of_description
    write_field(tmp_path / "images", "größer 2", (0,), 2, (256, 256))
    # Numbers, which Snakemake reads as such, name folders too.
    (tmp_path / "images").rename(tmp_path / "2024")
    done = describe(tmp_path, 2024)
    assert "8 files of 2 fields" in done.stdout
    assert "2024/{id}_{colour}.png" in done.stdout


def test_a_configuration_beside_it_is_not_read(tmp_path):
    (tmp_path / "images").mkdir()
    write_field(tmp_path / "images", "a", (0,), 1, (256, 256))
    (tmp_path / "config.yaml").write_text("collections: 7\nunknown: 8\n")
    done = plan(ROOT / "Snakefile", tmp_path, "--cores", "1", "--dry-run", "describe", "--config", "images=images")
    assert done.returncode == 0, done.text
    assert "describe" in done.text
    assert "segment" not in done.text
    assert written(tmp_path) == {"config.yaml"}


def test_what_cannot_be_described_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "config.yaml").write_text("collections: {}\n")
    (tmp_path / "txt").mkdir()
    (tmp_path / "txt/a.txt").touch()
    for images, sentence in (
        ("absent", "config key images: no such file or folder: absent"),
        (
            "txt",
            "config key images: no image in txt (but 1 x .txt); name a folder of PNG, TIFF, JPEG, OME-Zarr or of a ",
        ),
    ):
        done = plan(ROOT / "Snakefile", tmp_path, "--cores", "1", "describe", "--config", f"images={images}")
        assert done.returncode != 0
        assert sentence in done.text
        assert "Traceback" not in done.text


def test_without_images_it_says_what_to_write(tmp_path):
    (tmp_path / "images").mkdir()
    write_field(tmp_path / "images", "a", (0,), 1, (256, 256))
    write_sheet(tmp_path / "sheet.csv", [{"ID": "a", "Label": "0"}])
    collection = {"sheet": "sheet.csv", "images": "images/{id}_{colour}.png", "labels": True}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"collections": {"train": collection}}))
    done = plan(ROOT / "Snakefile", tmp_path, "--cores", "1", "describe")
    assert done.returncode != 0
    assert "snakemake describe --config images=data/new" in done.text
    assert not (tmp_path / "results").exists()


def test_in_a_file_the_key_of_a_collection_does_not_belong_at_the_first_level(tmp_path):
    (tmp_path / "config.yaml").write_text("collections: {}\nimages: data\n")
    done = plan(ROOT / "Snakefile", tmp_path, "--cores", "1", "--dry-run", "predict_only")
    assert done.returncode != 0
    assert "unknown key 'images'" in done.text


def test_another_workflow_describes_too(tmp_path):
    (tmp_path / "images").mkdir()
    write_field(tmp_path / "images", "a", (0,), 1, (256, 256))
    (tmp_path / "config.yaml").write_text("collections: {}\n")
    write_outer(tmp_path, ROOT / "Snakefile")
    done = plan(
        *(tmp_path / "Snakefile", tmp_path, "--cores", "1", "hpaloc_describe"),
        *("--config", "hpaloc={images: images}"),
    )
    assert done.returncode == 0, done.text
    assert 'images: "images/{id}_{colour}.png"' in done.text


def write_stacks(folder, channels):
    for number in range(2):
        field = simulate_field(f"f{number}", (0,), number, (256, 256), pixel_size=0.16)
        pages = np.stack([field.images[colour] for colour in channels])
        names = {"axes": "CYX", "Channel": {"Name": [channels[colour] for colour in channels]}}
        tifffile.imwrite(folder / f"f{number}.ome.tif", pages, ome=True, photometric="minisblack", metadata=names)


def write_plate(folder, colours):
    for number, well in enumerate(("A01", "B02")):
        field = simulate_field(well, (0,), number, (256, 256), pixel_size=0.16)
        for channel, colour in enumerate(colours, start=1):
            tifffile.imwrite(folder / f"P_{well}_s1_w{channel}.TIF", field.images[colour])


def write_planes(folder, colours):
    for number in range(2):
        field = simulate_field(f"f{number}", (0,), number, (256, 256), pixel_size=0.16)
        for channel, colour in enumerate(colours):
            for z in range(3):
                tifffile.imwrite(folder / f"f{number}_z{z}_ch{channel}.tif", field.images[colour])


def write_files(folder, colours):
    for number in range(2):
        write_field(folder, f"f{number}", (0,), number, (256, 256))
    for path in folder.iterdir():
        if path.stem.split("_")[1] not in colours:
            path.unlink()


CALLED = {"blue": "DAPI", "green": "GFP", "red": "Tubulin", "yellow": "Calnexin"}
THREE = {colour: CALLED[colour] for colour in ("blue", "green", "red")}


@pytest.mark.parametrize(
    ("write", "channels"),
    [
        pytest.param(write_files, COLOURS, id="a file per colour"),
        pytest.param(write_files, ("red", "green", "blue"), id="three colours"),
        pytest.param(write_stacks, CALLED, id="all channels in a file"),
        pytest.param(write_stacks, THREE, id="three channels in a file"),
        pytest.param(write_plate, COLOURS, id="plate"),
        pytest.param(write_plate, ("blue", "green", "red"), id="plate of three channels"),
        pytest.param(write_planes, COLOURS, id="planes in files"),
    ],
)
def test_what_is_printed_plans(tmp_path, write, channels):
    (tmp_path / "images").mkdir()
    write(tmp_path / "images", channels)
    done = describe(tmp_path, "images")
    assert done.returncode == 0, done.stderr
    write_stand_in(tmp_path / "models/demo")
    planned = plan(
        *(ROOT / "Snakefile", tmp_path, "--cores", "1", "--dry-run", "predict_only"),
        config="results/description/config.yaml",
    )
    assert planned.returncode == 0, planned.text
    manifests = [file.read_text() for file in (tmp_path / "results/sheet/new").glob("*.csv") if file.stem.isdigit()]
    assert sum(len(text.splitlines()) - 1 for text in manifests) == 2
    assert MISSING not in "".join(manifests)
