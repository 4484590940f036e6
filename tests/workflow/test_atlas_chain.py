"""From the atlas's XML to a scored model by one command, through a server that fails."""

import gzip
import json
import shutil

import pandas as pd
import pytest
import yaml
from atlas_xml import address, antibody, data_of, entry, whole
from failing_server import failing_server
from workflow_runs import ROOT, planned, read_rows, snakemake, write_field

from hpaloc.classes import COLOURS, NAMES
from hpaloc.files import digest

CLASSES = (0, 2, 14, 18)
# Antibodies of each class, and fields of each of them.
ANTIBODIES, FIELDS = 4, 2


def images():
    """Yield the label, the antibody's number and the name of each field."""
    for at, label in enumerate(CLASSES):
        for antibody_of_class in range(ANTIBODIES):
            number = 1 + at * ANTIBODIES + antibody_of_class
            for field in range(FIELDS):
                yield label, number, f"{number}_A1_{field + 1}"


def atlas(site):
    """Return the XML of an atlas with these fields at an address."""
    genes = []
    of_antibody = {}
    for label, number, image in images():
        of_antibody.setdefault((label, number), []).append(address(number, image, site=site))
    for (label, number), urls in of_antibody.items():
        locations = [] if label == 18 else [NAMES[label]]
        data = data_of("U-2 OS", locations, urls, "negative" if label == 18 else "strong")
        genes.append(entry(f"GENE{number}", antibody(f"HPA{number:06d}", data)))
    return whole(*genes)


def write_config(folder, xml, per_class):
    """Write config/atlas-small.yaml, cut down to the fields here."""
    config = yaml.safe_load((ROOT / "config/atlas-small.yaml").read_text())
    config["atlas"] |= {"xml": xml, "per_class": per_class, "test_fraction": 0.25}
    config["collections"]["train"]["download"]["per_second"] = 20
    config["collections"]["test"]["download"]["per_second"] = 20
    config["train"] |= {"input_size": 32, "epochs": 1, "batch_size": 16}
    config |= {"shards": 1, "pixel_size": 0.16, "predict": {"views": 1}}
    config["curation"]["validation_fraction"] = 0.3
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_one_plan_makes_the_sheets_and_the_jobs_and_the_next_makes_nothing(tmp_path):
    (tmp_path / "atlas.xml").write_text(atlas("https://images.proteinatlas.org"))
    write_config(tmp_path, "atlas.xml", 8)
    text = snakemake(tmp_path, "--dry-run").stdout
    assert "atlas: train: 24 fields, 12 antibodies, 12 genes" in text
    assert planned(tmp_path)[0]["download"] == 2
    assert "atlas: " not in snakemake(tmp_path, "--dry-run").stdout
    done = snakemake(tmp_path, "estimate_atlas", cwd=tmp_path)
    assert "images to download (jpg): 128, about 32 MB" in done.stdout
    assert not (tmp_path / "resources/downloaded").exists()
    # Another choice is another sheet, and its manifests.
    write_config(tmp_path, "atlas.xml", 4)
    snakemake(tmp_path, "--dry-run", "atlas_sheet")
    assert len(read_rows(tmp_path / "results/sheet/train/000.csv")) == 12


@pytest.mark.parametrize(
    ("atlas", "collections", "sentence"),
    [
        ({"xml": "no.xml"}, {}, "config key atlas.xml: no.xml: no such file or folder"),
        ({"xml": "page.xml"}, {}, "atlas XML page.xml: is a web page (HTML), not the atlas's XML; fetch it again"),
        ({"xml": "atlas.xml", "cell_line": []}, {}, "unknown key 'cell_line' (did you mean cell_lines?)"),
        ({"xml": "atlas.xml", "per_class": 0}, {}, "config key atlas.per_class: 0 is less than the minimum of 1"),
        ({}, {"train": {"sheet": "s.csv", "download": {}}}, "no collection has the key atlas"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path, atlas, collections, sentence):
    (tmp_path / "page.xml").write_text("<!doctype html><html></html>")
    (tmp_path / "s.csv").write_text("ID,antibody,image\na,HPA000007,1_A1_1\n")
    of_atlas = {"train": {"atlas": "train", "labels": True, "download": {}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"atlas": atlas, "collections": collections or of_atlas}))
    done = snakemake(tmp_path, "--dry-run", "estimate_atlas", check=False)
    assert done.returncode
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def predict_elsewhere(folder, address):
    """Predict the test fields in another folder with the packed model at an address, and hold the calls equal."""
    other = folder / "other"
    other.mkdir()
    shutil.copy(folder / "resources/atlas/test.csv", other)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    collection = config["collections"]["test"] | {"sheet": "test.csv"}
    del collection["atlas"], config["atlas"]
    config["collections"] = {"test": collection}
    config["model"] = {"path": address, "sha256": digest(folder / "results/model.zip")}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    snakemake(other, "predict_only", timeout=1200)
    own, theirs = (pd.read_parquet(root / "results/predictions/test/cells.parquet") for root in (folder, other))
    assert len(own)
    pd.testing.assert_frame_equal(own, theirs)


@pytest.mark.slow
def test_the_small_configuration_ends_with_a_scored_model_through_failures(tmp_path):
    (tmp_path / "site").mkdir()
    files = {}
    for seed, (label, number, image) in enumerate(images()):
        write_field(tmp_path / "site", image, (label,), seed, (512, 512), ".jpg")
        for colour in COLOURS:
            files[f"/{number}/{image}_{colour}.jpg"] = (tmp_path / f"site/{image}_{colour}.jpg").read_bytes()
    with failing_server(files) as server:
        files["/atlas.xml.gz"] = gzip.compress(atlas(server.url).encode())
        server.tricks["/atlas.xml.gz"] = ["cut short", 503]
        for field in (1, 2):
            server.tricks[f"/1/1_A1_{field}_red.jpg"] = ["hang up", 500]
            server.tricks[f"/2/2_A1_{field}_red.jpg"] = ["cut short"]
            # The fields of an antibody, of which one is chosen, are gone for good.
            del files[f"/3/3_A1_{field}_green.jpg"]
        write_config(tmp_path, server.url + "/atlas.xml.gz", 4)
        snakemake(tmp_path, timeout=1200)
        assert [path for path, _ in server.requests].count("/atlas.xml.gz") == 3
        # All is there.
        assert not planned(tmp_path)[0]
        snakemake(tmp_path, "pack_model")
        files["/model.zip"] = (tmp_path / "results/model.zip").read_bytes()
        predict_elsewhere(tmp_path, server.url + "/model.zip")
    sheets = {part: read_rows(tmp_path / f"resources/atlas/{part}.csv") for part in ("train", "test")}
    assert not {row["antibody"] for row in sheets["train"]} & {row["antibody"] for row in sheets["test"]}
    rejected = read_rows(tmp_path / "results/sheet/rejected.csv")
    assert [row["field"].split("_")[0] for row in rejected] == ["3"]
    assert rejected[0]["reason"].endswith("_green.jpg: the server answered 404")
    assert "the server answered 404" in "".join(
        path.read_text() for path in (tmp_path / "resources/downloaded").glob("*/000.csv")
    )
    metrics = json.loads((tmp_path / "results/evaluation/metrics.json").read_text())
    assert metrics["test"]["cells"]["accuracy"] is not None
    assert (tmp_path / "results/model/card.md").is_file()
