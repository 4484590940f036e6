"""The workflow on a real Slurm, through what a cluster does to it: jobs killed for memory and time, a controller that
restarts, a cancelled job, and a head process that dies."""

import re
import subprocess
import sys

import pytest
from one_node_slurm import one_node_slurm
from slurm_daemons import answers, until
from workflow_runs import ROOT, write_slurm_profile, write_small_run


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    # A job above its memory is killed, and the controller remembers every job to the end of the tests.
    settings = ["JobAcctGatherParams=OverMemoryKill", "MinJobAge=7200"]
    with one_node_slurm(tmp_path_factory.mktemp("slurm"), settings=settings, cpus=32, megabytes=200000) as slurm:
        yield slurm


def head(folder, log, *arguments):
    """Start `snakemake --profile slurm` in ``folder``."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--profile", "slurm", "--nocolor"]
    with open(folder / log, "w") as out:
        command += [*arguments, "--configfile", "config.yaml"]
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, start_new_session=True)


def partition(name, state):
    subprocess.run(["scontrol", "update", f"PartitionName={name}", f"State={state}"], check=True)


def finished(text):
    """Return the rules, with their shards, of which a log says that a job has finished."""
    return re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", text, flags=re.MULTILINE)


class Story:
    """What was seen of the run."""


@pytest.fixture(scope="module")
def story(slurm, tmp_path_factory):
    """A run of the whole chain in which everything happens that can happen to it, and what was seen."""
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder)
    write_slurm_profile(
        folder,
        curate={"mem_mb": "100 * 20 ** (attempt - 1)"},
        explore_data={"runtime": "1 if attempt == 1 else 20"},
    )
    story = Story()
    story.folder = folder
    first = head(folder, "first.log")
    try:
        slurm.running("rule_cells", first)
        slurm.stop("slurmctld")
        slurm.start("slurmctld")
        until(answers, first)
        # Training has to wait for its GPU until everything before it has been tried. Not any earlier: a controller
        # that comes back takes the states of partitions from its settings.
        partition("gpu", "DOWN")
        explore = slurm.running("rule_explore_data", first)
        # A job that hangs, until its time is over.
        slurm.freeze(explore)
        records = slurm.running("rule_records", first)
        # It could be over before it is cancelled.
        slurm.freeze(records)
        subprocess.run(["scancel", records], check=True)
        log = folder / "first.log"
        until(lambda: {"explore_data", "records", "rejected"} <= set(finished(log.read_text())), first)
        assert [state for _, state, comment, _ in slurm.jobs() if comment == "rule_train"] in ([], ["PENDING"])
        partition("gpu", "UP")
        story.training = slurm.running("rule_train", first)
        # It could be over before its head process dies.
        slurm.freeze(story.training)
        done = subprocess.run(
            ["scontrol", "show", "job", "--details", story.training], capture_output=True, text=True, check=True
        )
        story.training_job = done.stdout
    finally:
        # Without a word to its jobs or to the lock it holds.
        first.kill()
        first.wait()
    story.first_log = log.read_text()
    story.after_first = slurm.jobs()
    story.states = {job: state for job, state, _, _ in story.after_first}
    story.explore, story.records = explore, records
    run_id = re.search(r"SLURM run ID: (\S+)", story.first_log)[1]
    subprocess.run(["scancel", f"--name={run_id}"], check=True)
    until(slurm.ended)
    story.written = {
        path: path.stat().st_mtime_ns
        for name in ("cells", "tiles", "dataset", "figures")
        for path in (folder / "results" / name).rglob("*")
        if path.is_file()
    }
    assert head(folder, "unlock.log", "--unlock").wait() == 0
    second = head(folder, "second.log")
    assert second.wait() == 0, (folder / "second.log").read_text()[-6000:]
    story.second_log = (folder / "second.log").read_text()
    story.jobs = slurm.jobs()
    return story


def test_every_job_goes_through_slurm(story):
    # What describes the run itself, or its model in words, stays with the head process.
    local = re.findall(r"^localrule (\w+):", story.first_log + story.second_log, flags=re.MULTILINE)
    assert set(local) == {"add_seen", "model_card", "record_run", "report_zip", "all"}
    submitted = {comment.removeprefix("rule_").split("_wildcards")[0] for _, _, comment, _ in story.jobs}
    assert submitted >= {
        *("cells_segment_simulate_tile", "explore_data", "sheet", "rejected", "curate", "records", "train"),
        *("predictions_predict", "training_curves", "aggregate", "submit", "evaluate"),
    }
    for name in ("report.zip", "evaluation/metrics.json", "predictions/test/submission.csv"):
        assert (story.folder / "results" / name).stat().st_size > 0, name


def test_training_and_prediction_are_on_the_gpu_partition_and_training_holds_the_gpu(story):
    assert "Partition=gpu" in story.training_job
    assert "GRES=gpu:fake:1(IDX:0)" in story.training_job
    assert "NumTasks=1" in story.training_job
    where = {(comment, partition) for _, _, comment, partition in story.jobs}
    on_gpus = {comment.removeprefix("rule_") for comment, partition in where if partition == "gpu"}
    assert on_gpus >= {"train", "predictions_predict"}
    assert not {"cells_segment_simulate_tile", "curate", "aggregate"} & on_gpus


def test_a_job_killed_for_memory_is_tried_again_with_more(story):
    jobs = [job for job, _, comment, _ in story.jobs if comment == "rule_curate"]
    assert len(jobs) == 2
    assert story.states[jobs[1]] == "COMPLETED"
    log = (story.folder / f".snakemake/slurm_logs/rule_curate/{jobs[0]}.log").read_text()
    assert "exceeded memory limit" in log


def test_a_job_that_runs_out_of_time_is_tried_again_with_more(story):
    jobs = [job for job, _, comment, _ in story.jobs if comment == "rule_explore_data"]
    assert jobs[0] == story.explore
    assert story.states[jobs[0]] == "TIMEOUT"
    assert story.states[jobs[1]] == "COMPLETED"


def test_a_cancelled_job_is_tried_again(story):
    jobs = [job for job, _, comment, _ in story.jobs if comment == "rule_records"]
    assert jobs[0] == story.records
    assert story.states[jobs[0]] == "CANCELLED"
    assert story.states[jobs[1]] == "COMPLETED"


def test_the_controller_came_back_to_the_same_job(story):
    jobs = [job for job, _, comment, _ in story.jobs if comment.startswith("rule_cells")]
    assert len(jobs) == 1
    assert story.states[jobs[0]] == "COMPLETED"


def test_a_new_head_process_redoes_nothing_that_was_finished(story):
    assert story.written
    now = {path: path.stat().st_mtime_ns for path in story.written}
    assert now == story.written
    again = set(finished(story.second_log))
    assert not again & {"simulate", "segment", "tile", "curate", "records", "explore_data", "sheet", "rejected"}
    assert "train" in again
