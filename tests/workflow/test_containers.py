"""Jobs in an image, which a stand-in for apptainer notes."""

import os

from workflow_runs import ROOT, snakemake, write_small_run

STAND_IN = ROOT / "tests/support/apptainer-without-images/bin"


def run(folder, *arguments):
    """Run the first rules in a folder; return the images of the jobs that had one."""
    seen = folder / "images.txt"
    seen.touch()
    environment = os.environ | {
        "PATH": os.pathsep.join([str(STAND_IN), os.environ["PATH"]]),
        "IMAGES_SEEN": str(seen),
    }
    snakemake(folder, "results/preview/test.html", "--sdm", "apptainer", *arguments, env=environment)
    assert (folder / "results/preview/test.html").exists()
    return seen.read_text().split()


def test_all_jobs_run_in_the_image_that_the_configuration_names(tmp_path):
    write_small_run(tmp_path)
    (tmp_path / "hpaloc.sif").touch()
    image = str(tmp_path / "hpaloc.sif")
    with open(tmp_path / "config.yaml", "a") as config:
        config.write(f"container: {image}\n")
    # simulate, segment, tile, preview
    assert run(tmp_path) == [image] * 4


def test_no_job_runs_in_an_image_that_is_not_named(tmp_path):
    write_small_run(tmp_path)
    assert run(tmp_path) == []
