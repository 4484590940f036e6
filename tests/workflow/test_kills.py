"""Kills: whatever dies when, the same command again gives the bytes of a run that was left alone."""

import shutil
import signal
import subprocess
import time
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest
from bad_fields import right_images, write_right
from bad_input_runs import model_folder
from workflow_runs import command, snakemake, write_config, write_sheet

# A shell, a browser and a file system each have a reason to stumble over these.
IDS = ("field one", "$(touch pwned)", "é<b>&'", "007")
STAGES = ("segment", "tile", "predict")
AFTER = ("sheet", "rejected", "aggregate", "submit", "summary")
TRAINING = ("simulate", "segment", "tile", "curate", "records", "train", "predict", "aggregate", "submit", "evaluate")
# Tables of seconds, dates and file names; everything else is the same from run to run.
VOLATILE = ("report.zip", "history.csv", "card.md", "model/config.json", "model/checksums.json", "logs/", ".svg", ".h5")
# Those of what is added to a model folder list its checksums.json too.
VOLATILE += ("run/jobs.csv", ".checksums.json")
TRAINING += ("explore", "model_card", "training_curves", "sheet", "rejected", "summary", "report_zip")


def project(folder, model):
    """Make a working directory with four fields in two shards and a model to predict them with."""
    (folder / "images").mkdir(parents=True)
    for n, id in enumerate(IDS):
        write_right(folder / "images", id, right_images(n))
    write_sheet(folder / "sheet.csv", [{"ID": id} for id in IDS])
    shutil.copytree(model, folder / "model")
    write_config(
        folder / "config.yaml",
        collections={"new": {"sheet": "sheet.csv", "images": "images/{id}_{colour}.png"}},
        shards=2,
        pixel_size=0.16,
        tiles={"size": 32},
        predict={"views": 1},
        model={"path": "model"},
    )
    return folder


def content(path):
    """Return the bytes of a file; of a network's those of its weights, beside which Keras notes hour and addresses."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read("model.weights.h5")
    return path.read_bytes()


def results(folder):
    """Return the bytes of every file below results that has a final name; files of the engine are left out, and what a
    training keeps to go on from."""
    named = {path.relative_to(folder): path for path in sorted((folder / "results").rglob("*")) if path.is_file()}
    return {
        str(name): content(path)
        for name, path in named.items()
        if not any(part.startswith(".") or part == "model.work" for part in name.parts)
    }


def steady(folder):
    """Return the bytes of the results that are the same from run to run."""
    found = results(folder)
    return {name: found[name] for name in found if not any(part in name for part in VOLATILE)}


def left_over(folder):
    """Return what stands below results under a temporary name, or is kept to go on from."""
    found = [*(folder / "results").rglob(".*"), *(folder / "results").rglob("model.work")]
    return [path for path in found if path.name != ".snakemake_timestamp"]


def scripts(driver):
    """Return {process: name of its script} of the jobs that run below a process."""
    found = {}
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if len(words) > 1 and ".snakemake/scripts/" in words[-1]:
            found[process] = Path(words[-1]).name.split(".")[-2]
    return found


def run_and_kill(folder, target, wanted, moment, lasts):
    """Run the workflow, kill the first job of each wanted script in turn, and return which were killed.

    moment: share of the time that the job takes by itself (``lasts``, s) after which it is killed.
    """
    killed = []
    seen = {}
    with open(folder / "run.log", "a") as log:
        driver = subprocess.Popen(command(folder, *target), stdout=log, stderr=log)
        while driver.poll() is None:
            for process, script in scripts(driver).items():
                seen.setdefault(process, time.monotonic())
                late = time.monotonic() - seen[process] >= moment * lasts.get(script, 0)
                if script in wanted and script not in killed and late and process.is_running():
                    process.send_signal(signal.SIGKILL)
                    killed.append(script)
            time.sleep(0.02)
    return driver.returncode, killed


def durations(folder):
    """Return the longest time (s) of a job of each script, from the benchmarks of a finished run."""
    lasts = {}
    for path in (folder / "benchmarks").rglob("*.tsv"):
        script = path.relative_to(folder / "benchmarks").parts[0].removesuffix(".tsv")
        lasts[script] = max(lasts.get(script, 0.0), float(pd.read_csv(path, sep="\t")["s"].max()))
    return lasts


def survive(folder, target, wanted, moment, lasts, unbroken, volatile=()):
    """Kill each wanted job once, run the same command until it ends well, and hold the results to those unbroken."""
    left = list(wanted)
    survived = Counter()
    for _ in range(2 * len(wanted) + 2):
        code, killed = run_and_kill(folder, target, left, moment, lasts)
        assert code == 0 or killed
        left = [script for script in left if script not in killed]
        survived.update(killed)
        # Whatever has its final name is whole.
        for name, found in results(folder).items():
            if not any(part in name for part in volatile):
                assert found == unbroken[name], name
        if code == 0:
            break
    assert code == 0
    # Records for TensorBoard are named after hour and process.
    assert {name for name in results(folder) if "tfevents" not in name} == {
        name for name in unbroken if "tfevents" not in name
    }
    assert left_over(folder) == []
    assert "Nothing to be done" in snakemake(folder, *target).stdout
    return survived


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("given") / "model")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, model):
    """A run that nothing disturbs, under a umask of its own."""
    folder = project(tmp_path_factory.mktemp("unbroken") / "run", model)
    return folder, snakemake(folder, "predict_only", umask=0o027).stdout


def copy(unbroken, tmp_path):
    """Return a copy of the inputs of the unbroken run, times included."""
    folder = tmp_path / "run"
    ours = shutil.ignore_patterns("results", "logs", "benchmarks", ".snakemake")
    shutil.copytree(unbroken, folder, ignore=ours)
    return folder


def survive_each(whole, tmp_path, target, wanted, needed, moment, volatile=()):
    """Return the jobs that survived a kill at their moment, all of ``needed`` if four runs are enough for it.

    Where other work has left the machine since, jobs end before their moment: once more, by the time they take now.
    """
    lasts, survived = durations(whole), Counter()
    for attempt in range(4):
        folder = copy(whole, tmp_path / str(attempt))
        left = [script for script in wanted if script not in survived]
        survived += survive(folder, target, left, moment, lasts, results(whole), volatile)
        if set(survived) >= set(needed):
            break
        lasts = durations(folder)
    return set(survived)


def test_a_run_ends_with_what_came_in_and_went_out(unbroken):
    folder, printed = unbroken
    cells = len(pd.read_parquet(folder / "results/predictions/new/cells.parquet"))
    assert cells > 0
    line = f"new: 4 fields in, 4 through (0 with a warning), 0 rejected; {cells} cells found, {cells} predicted"
    assert line in printed.splitlines()
    summary = pd.read_csv(folder / "results/sheet/summary.csv").iloc[0]
    assert summary["fields"] == summary["fields_through"] == 4
    assert summary["cells"] == summary["cells_predicted"] == cells


def test_files_are_made_under_the_umask(unbroken):
    folder, _ = unbroken
    # TensorFlow and Snakemake make files of their own; these are hpaloc's.
    modes = {path: path.stat().st_mode & 0o027 for path in (folder / "results").rglob("*") if path.is_file()}
    assert modes
    assert not [path for path, mode in modes.items() if mode]


def test_odd_ids_are_names_and_nothing_else(unbroken):
    folder, _ = unbroken
    assert not list(folder.rglob("pwned"))
    fields = pd.read_parquet(folder / "results/predictions/new/fields.parquet")
    assert set(fields["field"]) == set(IDS)
    submission = pd.read_csv(folder / "results/predictions/new/submission.csv", dtype=str)
    assert set(submission["ID"]) == set(IDS)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.02, 0.3, 0.6, 0.95])
def test_a_killed_job_of_any_rule_is_done_again_to_the_same_bytes(unbroken, tmp_path, moment):
    whole, _ = unbroken
    survived = survive_each(whole, tmp_path, ["predict_only"], [*STAGES, *AFTER], STAGES, moment, VOLATILE)
    # The last moments of a quick job may pass between two looks.
    assert survived >= set(STAGES) if moment > 0.5 else survived == {*STAGES, *AFTER}


def kill_all(driver):
    """Kill a process and everything below it, as a power cut does."""
    family = [*psutil.Process(driver.pid).children(recursive=True), psutil.Process(driver.pid)]
    for process in family:
        process.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=60)


def test_after_a_power_cut_and_kills_the_same_command_gives_the_same_bytes(unbroken, tmp_path):
    whole, _ = unbroken
    folder = copy(whole, tmp_path)
    driver = subprocess.Popen(command(folder, "predict_only"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (driver.poll() is not None or "segment" in scripts(driver).values()):
        time.sleep(0.02)
    kill_all(driver)
    done = snakemake(folder, "predict_only", check=False)
    assert done.returncode != 0
    sentence = "another run works in this folder, or one was killed here; if none does, `snakemake --unlock` frees it"
    assert any(line.endswith(sentence) for line in done.stdout.splitlines()), done.stdout
    snakemake(folder, "--unlock")
    # Early: a job that is four times as fast as it was in the unbroken run is still killed.
    survived = survive(folder, ["predict_only"], STAGES, 0.25, durations(whole), results(whole), VOLATILE)
    assert set(survived) == set(STAGES)
    assert steady(folder) == steady(whole)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.1, 0.5, 0.9])
def test_a_killed_job_of_the_training_is_done_again(tmp_path_factory, tmp_path, moment):
    whole = tmp_path_factory.mktemp("training") / "run"
    whole.mkdir()
    rows = [{"ID": f"f{n}", "Label": str(label), "antibody": f"a{n}"} for n, label in enumerate((0, 0, 14, 14, 2, 2))]
    write_sheet(whole / "train.csv", rows)
    write_sheet(whole / "test.csv", [{"ID": f"t{n}", "Label": str(label)} for n, label in enumerate((0, 14, 2))])
    simulated = {"labels": True, "simulate": {"shape": [512, 512]}}
    write_config(
        whole / "config.yaml",
        collections={name: {"sheet": f"{name}.csv", **simulated} for name in ("train", "test")},
        shards=1,
        pixel_size=0.16,
        curation={"validation_fraction": 0.34},
        tiles={"size": 64},
        train={"input_size": 32, "epochs": 1, "batch_size": 16},
        predict={"views": 1},
    )
    snakemake(whole)
    needed = {"simulate", "segment", "tile", "train", "predict"}
    # Every run is held to have what the unbroken one has.
    assert (whole / "results/report.zip").exists()
    assert survive_each(whole, tmp_path, [], TRAINING, needed, moment, VOLATILE) >= needed
