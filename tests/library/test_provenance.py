"""What a run was made with: packages of the environments, and what its jobs took."""

import platform
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hpaloc.provenance import job_table, software_table

ROOT = Path(__file__).resolve().parents[2]


def test_every_package_of_an_environment_is_listed_with_both_versions():
    table = software_table([ROOT / "envs/tensorflow.yaml", ROOT / "envs/analysis.yaml"])
    assert table.iloc[0]["package"] == "snakemake"
    assert table.iloc[0]["here"] == metadata.version("snakemake")
    rows = table[table["environment"] == "tensorflow"].set_index("package")
    assert rows.loc["tensorflow", "wanted"] == rows.loc["tensorflow", "here"] == metadata.version("tensorflow-cpu")
    assert rows.loc["python", "here"] == platform.python_version()
    wanted = yaml.safe_load((ROOT / "envs/analysis.yaml").read_text())["dependencies"]
    counted = sum(len(entry["pip"]) if isinstance(entry, dict) else 1 for entry in wanted)
    assert (table["environment"] == "analysis").sum() == counted


def test_a_package_that_is_not_here_is_said_so(tmp_path):
    (tmp_path / "e.yaml").write_text("dependencies: [conda-forge::no-such-package=1.2, python=3.11]\n")
    row = software_table([tmp_path / "e.yaml"]).set_index("package").loc["no-such-package"]
    assert (row["wanted"], row["here"]) == ("1.2", "")
    with pytest.raises(FileNotFoundError):
        software_table([tmp_path / "absent.yaml"])


def test_the_jobs_asked_for_are_listed_the_longest_first(tmp_path):
    header = "s\th:m:s\tmax_rss\tcpu_time\n"
    (tmp_path / "segment/test").mkdir(parents=True)
    (tmp_path / "segment/test/000.tsv").write_text(header + "2.5\t0:00:02\t100.5\t2.1\n")
    (tmp_path / "train.tsv").write_text(header + "1\t0:00:01\t5\t1\n60\t0:01:00\t-\t110\n")
    (tmp_path / "other.tsv").write_text(header + "9\t0:00:09\t1\t1\n")
    files = [tmp_path / "segment/test/000.tsv", tmp_path / "train.tsv", tmp_path / "not_made.tsv"]
    table = job_table(files, tmp_path)
    assert table["rule"].tolist() == ["train", "segment"]
    assert table["job"].tolist() == ["", "test/000"]
    assert table["seconds"].tolist() == [60, 2.5]
    assert pd.isna(table["memory_mb"][0])
    assert job_table([]).empty
