"""Settings of the Dask workers that cannot work are refused in one sentence that names the key."""

import pytest

from hpaloc.segmentation.cluster import start_cluster
from hpaloc.segmentation.weights import SetupError

WORKS = {"cores": 2, "memory": "2GB", "interface": "lo"}


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A PATH with an sbatch, which is looked for and not run."""
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def refusal(dask_settings):
    with pytest.raises(SetupError) as error, start_cluster(dask_settings, 1, 500):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"config_name": "nonsense"},
            "config_name has to be a section of jobqueue in Dask's own settings, not 'n",
        ),
        ({"security": "x"}, "security has to be true or false, not 'x'"),
        ({"job_extra_directives": "--exclusive"}, "job_extra_directives has to be a list of texts, not '--exclusive'"),
        ({"worker_extra_args": "--lifetime"}, "worker_extra_args has to be a list of texts, not '--lifetime'"),
        ({"worker_extra_args": [{"a": 1}]}, "worker_extra_args has to be a list of texts, not [{'a': 1}]"),
        (
            {"job_script_prologue": "load x"},
            "job_script_prologue has to be a list of texts, not 'load x'",
        ),
        ({"job_directives_skip": 5}, "job_directives_skip has to be a list of texts, not 5"),
        ({"processes": 0}, "processes has to be an integer of 1 or more, not 0"),
        ({"cores": 0}, "cores has to be an integer of 1 or more, not 0"),
        ({"cores": True}, "cores has to be an integer of 1 or more, not True"),
        ({"jobs": None}, "jobs has to be an integer of 1 or more, not null"),
        ({"jobs": "two"}, "jobs has to be an integer of 1 or more, not 'two'"),
        ({"memory": "24 XB"}, "memory has to be a size such as 24GB, not '24 XB'"),
        ({"memory": ["24GB"]}, "memory has to be a size such as 24GB, not ['24GB']"),
        ({"memory": 0}, "memory has to be a size such as 24GB, not 0"),
        ({"queue": ["a", "b"]}, "queue has to be a text, not ['a', 'b']"),
        ({"log_directory": 5}, "log_directory has to be a text, not 5"),
        ({"scheduler_options": "x"}, "scheduler_options has to be a table of keys, not 'x'"),
        ({"scheduler_options": {"nonsense": 1}}, "nonsense"),
        ({"coers": 2}, "SLURMCluster of dask-jobqueue knows no key coers"),
        ({"interface": "no0"}, "no0"),
        ({"n_workers": 3}, "n_workers has to be left out, since it is set for you, not 3"),
    ],
)
@pytest.mark.usefixtures("sbatch")
def test_a_setting_that_slurm_jobs_cannot_have_is_named(wrong, sentence):
    said = refusal({"jobqueue": WORKS | wrong})
    assert said.startswith("dask.jobqueue: ")
    assert sentence in said


@pytest.mark.usefixtures("sbatch")
def test_numbers_that_are_names_are_taken():
    given = {"queue": 7, "account": 12, "walltime": 30, "memory": 2e9, "processes": None, "worker_extra_args": None}
    with start_cluster({"jobqueue": WORKS | given}, 1, 500) as cluster:
        assert cluster.in_flight() == 2
        assert "#SBATCH -p 7\n#SBATCH -A 12" in cluster.client.cluster.job_script()


@pytest.mark.parametrize("address", ["inproc://x", "inproc://127.0.0.1/1/1"])
def test_an_address_inside_a_process_is_no_scheduler_to_join(address):
    said = refusal({"scheduler_address": address})
    assert said == f"dask.scheduler_address: {address} is inside one process; give one such as tcp://node:8786"
