"""Dask workers as the configuration asks for them: what only the job can know is refused in one sentence there."""

import inspect

import dask
import distributed
import pytest

from hpaloc.config import complete, load_schema
from hpaloc.segmentation.cluster import DaskSettings, start_cluster
from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.workers import Cluster, Restarts

jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")

WORKS = {"cores": 2, "memory": "2GB", "interface": "lo"}

# What hpaloc sets, what SLURMCluster refuses in favour of scheduler_options, and what no YAML can hold.
SET_BY_HPALOC = {"n_workers", "job_cls", "loop", "asynchronous", "scheduler", "scheduler_cls"}
GO_TO_THE_SCHEDULER = {"dashboard_address", "host"}
OBJECTS = {"services", "service_kwargs", "extensions", "security", "plugins"}


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A PATH with an sbatch, which is looked for and not run."""
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def completed(jobqueue):
    """Return the settings of a configuration with these keys below dask.jobqueue, as a job reads them."""
    collections = {"train": {"sheet": "train.csv", "images": "{id}_{colour}.png", "labels": True}}
    return DaskSettings(**complete({"collections": collections, "dask": {"jobqueue": jobqueue}})["dask"])


def refusal(settings):
    with pytest.raises(SetupError) as error, start_cluster(settings, 1, 500):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def job_script(jobqueue):
    with start_cluster(completed(jobqueue), 1, 500) as cluster:
        return cluster.client.cluster.job_script()


def arguments(*classes):
    """Return the names of what may be passed to any of the classes."""
    parameters = [p for of in classes for p in inspect.signature(of.__init__).parameters.values()]
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"}


def test_the_schema_has_the_arguments_of_slurm_clusters():
    slurm = arguments(jobqueue.JobQueueCluster, jobqueue.core.Job, jobqueue.slurm.SLURMJob)
    of_jobqueue = load_schema()["properties"]["dask"]["properties"]["jobqueue"]["properties"]
    assert of_jobqueue.keys() == (slurm | {"jobs"}) - SET_BY_HPALOC - GO_TO_THE_SCHEDULER
    assert of_jobqueue["scheduler_options"]["properties"].keys() == arguments(distributed.Scheduler) - OBJECTS


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"config_name": "nonsense"}, "config_name must be a section of jobqueue in Dask's own settings, not 'nonse"),
        ({"interface": "no0"}, "Error: 'no0' is not a valid network interface"),
        ({"memory": None}, "You must specify how much cores and memory per job"),
    ],
)
@pytest.mark.usefixtures("sbatch")
def test_what_only_the_job_can_know_is_refused_there(wrong, sentence):
    said = refusal(completed(WORKS | wrong))
    assert said.startswith("dask.jobqueue: ")
    assert sentence in said


def test_slurm_jobs_need_an_sbatch(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "has no sbatch on its PATH; set dask.jobqueue to null" in refusal(completed(WORKS))


@pytest.mark.usefixtures("sbatch")
def test_a_value_may_be_written_in_several_ways():
    given = {"queue": 7, "account": "007", "walltime": "01:00:00", "memory": 2e9}
    script = job_script(WORKS | given | {"worker_extra_args": ["--lifetime", 9]})
    assert "#SBATCH -p 7\n#SBATCH -A 007\n" in script
    assert "#SBATCH --mem=2G\n#SBATCH -t 01:00:00\n" in script
    assert "--lifetime 9" in script


@pytest.mark.usefixtures("sbatch")
def test_keys_that_are_left_out_are_those_of_dask_jobqueue():
    script = job_script(WORKS | {"processes": None, "security": False})
    assert "#SBATCH -J dask-worker\n" in script
    assert "#SBATCH -t 00:30:00\n" in script
    assert "--nworkers 2 --nanny --death-timeout 60 --interface lo" in script
    assert "--no-nanny" in job_script(WORKS | {"nanny": False})


@pytest.mark.usefixtures("sbatch")
def test_keys_that_are_left_out_are_those_of_the_named_section():
    section = dask.config.get("jobqueue.slurm") | {"cores": 3, "job-script-prologue": ["module load site"]}
    section["scheduler-options"] = {"idle_timeout": "1 hour"}
    with (
        dask.config.set({"jobqueue.site": section}),
        start_cluster(completed({"memory": "3GB", "config_name": "site", "jobs": 2}), 1, 500) as cluster,
    ):
        assert cluster.in_flight() == 6
        assert cluster.client.cluster.scheduler.idle_timeout == 3600
        script = cluster.client.cluster.job_script()
    # What hpaloc sets for a worker comes before what a site or a person sets.
    assert "TERMINATE=0.95\nmodule load site\n" in script


@pytest.mark.parametrize("key", ["job_script_prologue", "env_extra"])
@pytest.mark.usefixtures("sbatch")
@pytest.mark.filterwarnings("ignore:env_extra has been renamed")
def test_a_prologue_goes_into_the_script_of_a_job(key):
    assert "TERMINATE=0.95\nmodule load mine\n" in job_script(WORKS | {key: ["module load mine"]})


@pytest.mark.parametrize("address", ["inproc://x", "inproc://127.0.0.1/1/1"])
def test_an_address_inside_a_process_is_no_scheduler_to_join(address):
    said = refusal(DaskSettings(address))
    assert said == f"dask.scheduler_address: {address} is inside one process; give one such as tcp://node:8786"


@pytest.mark.parametrize(("seconds", "seen"), [(3600, [1]), (0, [1, 2])])
def test_workers_are_looked_after_as_often_as_their_kind_asks(seconds, seen):
    looks = []
    cluster = Cluster(None, lambda: 1, looks.append, seconds)
    cluster.watch(1)
    cluster.watch(2)
    assert looks == seen


def test_workers_that_only_end_are_given_up_unless_a_field_is_done():
    restarts = Restarts(1, "the workers")
    restarts.count(range(9), 0)
    restarts.count(range(9, 18), 1)
    with pytest.raises(SetupError, match="the workers end again and again, 10 since the last field was done"):
        restarts.count([18], 1)
