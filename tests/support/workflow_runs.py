"""Small collections on disk, and runs of the workflow on them in a separate folder."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import tifffile
import yaml
from dag import listed_jobs
from forked_plans import plan

from hpaloc.classes import COLOURS
from hpaloc.simulate.field import simulate_field

ROOT = Path(__file__).resolve().parents[2]


def command(folder, *arguments, config="config.yaml"):
    """Return the command line of a run of the workflow in ``folder``."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    # Last, since it takes every following word that is not an option as a file.
    return [*words, "--cores", "2", "--nocolor", *arguments, "--configfile", Path(folder, config)]


def snakemake(folder, *arguments, config="config.yaml", check=True, **options):
    """Run the workflow in ``folder`` and return the finished process with stdout and stderr in one text.

    ``options`` are those of subprocess.run. A dry run without any is forked from a process that has loaded Snakemake.
    """
    if "--dry-run" in arguments and not options:
        forked = plan(ROOT / "Snakefile", folder, "--cores", "2", *arguments, config=config)
        done = subprocess.CompletedProcess(arguments, forked.returncode, stdout=forked.text)
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done
    words = command(folder, *arguments, config=config)
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert not check or done.returncode == 0, done.stdout[-6000:]
    return done


def planned(folder, *arguments, **options):
    """Return how many jobs of each rule a dry run lists, and the shards of those that have one."""
    text = snakemake(folder, "--dry-run", *arguments, **options).stdout
    return listed_jobs(text)


def write_field(folder, name, labels, seed, shape=(512, 512), suffix=".png", dtype="uint8"):
    """Simulate one field, write its four channel files, and return it."""
    field = simulate_field(name, labels, seed, shape, pixel_size=0.16, dtype=dtype)
    for colour in COLOURS:
        path = str(Path(folder, f"{name}_{colour}{suffix}"))
        if suffix == ".tif":
            tifffile.imwrite(path, field.images[colour], compression="deflate")
        else:
            cv2.imwrite(path, field.images[colour])
    return field


def write_sheet(path, rows):
    """Write a sheet; ``rows`` are dictionaries with the same keys."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path):
    """Return the rows of a CSV with a header, as dictionaries of text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_config(path, **config):
    """Write a configuration."""
    Path(path).write_text(yaml.safe_dump(config))


def change_config(folder, **changed):
    """Change keys of the configuration of a run in ``folder``, and return it."""
    path = Path(folder, "config.yaml")
    config = yaml.safe_load(path.read_text()) | changed
    write_config(path, **config)
    return config


def write_small_run(folder):
    """Write sheets and configuration of the smallest run with every stage, on simulated fields."""
    labels = ["0", "0", "14", "14", "2", "2", "0|14", "18"]
    train = [{"ID": f"train-{i}", "Label": of_field, "antibody": f"antibody-{i}"} for i, of_field in enumerate(labels)]
    write_sheet(Path(folder, "train.csv"), train)
    write_sheet(Path(folder, "test.csv"), [{"ID": f"test-{i}", "Label": label} for i, label in enumerate(["0", "14"])])
    write_config(
        Path(folder, "config.yaml"),
        collections={
            name: {"sheet": f"{name}.csv", "labels": True, "simulate": {"shape": [512, 512]}}
            for name in ("train", "test")
        },
        shards=1,
        pixel_size=0.16,
        curation={"labels": "all", "validation_fraction": 0.25},
        train={"input_size": 32, "epochs": 1, "batch_size": 16},
        predict={"views": 2},
    )


def write_slurm_profile(folder, **resources):
    """Write a site's profile to ``folder``/slurm: the shipped one without conda, which checks its jobs more often.

    ``resources`` are added to those it sets for single rules.
    """
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    del profile["software-deployment-method"]
    profile |= {"slurm-init-seconds-before-status-checks": 2, "seconds-between-status-checks": 2, "latency-wait": 20}
    profile["set-resources"] |= resources
    Path(folder, "slurm").mkdir()
    Path(folder, "slurm/config.yaml").write_text(yaml.safe_dump(profile))
