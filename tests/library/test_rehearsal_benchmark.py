"""The rehearsal makes a field of its own for each row, and measures each rule by what its jobs wrote."""

import cv2
import numpy as np
import pytest
import yaml
from rehearsal import compared, measure, table, write_fields

from hpaloc.config import complete
from hpaloc.planning.settings import check_training

LABELS = "ID,Label\n" + "".join(f"f{at},{label}\n" for at, label in enumerate(["0", "0", "0", "16|2", "16|2", "16|2"]))


@pytest.fixture
def written(tmp_path):
    (tmp_path / "labels.csv").write_text(LABELS)
    assert write_fields(tmp_path, tmp_path / "labels.csv", 5, 1) == 5
    return tmp_path


def test_every_field_has_files_of_its_own_and_is_in_one_sheet(written):
    lines = [line for name in ("training", "held_out") for line in (written / f"{name}.csv").read_text().split()]
    assert sorted(line for line in lines if line != "ID,Label") == LABELS.split()[1:6]
    images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(written.glob("train/*_green.png"))]
    assert len(images) == 5
    assert not any(np.array_equal(one, other) for at, one in enumerate(images) for other in images[:at])
    config = yaml.safe_load((written / "config.yaml").read_text())
    check_training(complete(config))
    assert config["shards"] == 1


def test_a_second_call_draws_nothing_again(written):
    states = {path: path.stat().st_mtime_ns for path in written.glob("train/*")}
    write_fields(written, written / "labels.csv", 5, 1)
    assert {path: path.stat().st_mtime_ns for path in written.glob("train/*")} == states


def test_a_rule_has_the_time_of_its_jobs_and_the_disk_of_its_outputs(tmp_path):
    (tmp_path / "tiles").mkdir()
    for name, size in (("tiles/a", 5000), ("tiles/b", 9000), ("table", 100)):
        (tmp_path / name).write_bytes(b"x" * size)
    jobs = {"one.tsv": ("2.5", "300.0"), "two.tsv": ("1.5", "-"), "three.tsv": ("4.0", "100.0")}
    for name, (seconds, memory) in jobs.items():
        (tmp_path / name).write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t{memory}\n")
    outputs = {"tile": [tmp_path / "tiles"], "curate": [tmp_path / "table"], "train": [tmp_path / "none"]}
    rules = {tmp_path / "one.tsv": "tile", tmp_path / "two.tsv": "tile", tmp_path / "three.tsv": "curate"}
    found = measure(outputs, rules | {tmp_path / "absent.tsv": "train"})
    assert found["tile"] == {"jobs": 2, "s": 4.0, "MB": 300.0, "disk MB": pytest.approx(0.0205, abs=0.02), "files": 2}
    assert (found["curate"]["s"], found["curate"]["files"]) == (4.0, 1)
    assert "train" not in found
    assert not measure(outputs, rules, since=(tmp_path / "three.tsv").stat().st_mtime + 1)
    run = {"fields": 10, "all": {"rules": found}}
    larger = {name: rule | {"s": rule["s"] * 11} for name, rule in found.items()}
    assert "| tile | 2 | 4 | 300 | 0 | 2 |" in table(run["all"])
    lines = compared(run, {"fields": 100, "all": {"rules": larger}})
    assert lines[0].startswith("From 10 to 100 fields, 10.0 times as many")
    assert "| tile | 2 | 44 | 11.0 | 300 | 1.0 | 0 | 1.0 | 2 | 1.0 |" in lines
