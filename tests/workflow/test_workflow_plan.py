"""What the workflow says before it runs anything: the plan, the linter, and one sentence for each mistake."""

import inspect
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from rule_environments import STAND_IN
from stand_in_models import write_stand_in
from workflow_runs import ROOT, planned, snakemake, write_config, write_field, write_sheet

from hpaloc.browser.page import APP_FILES
from hpaloc.classes import COLOURS
from hpaloc.figures import data, interpretation, scores, training
from hpaloc.finding import shards_of
from hpaloc.layout import PATTERNS, CollectionFiles


@pytest.fixture
def folder(tmp_path):
    """A working directory with six empty fields in two collections."""
    (tmp_path / "images").mkdir()
    for collection in ("train", "test"):
        ids = [f"{collection}-{i}" for i in range(3)]
        for id in ids:
            for colour in COLOURS:
                (tmp_path / "images" / f"{id}_{colour}.png").touch()
        write_sheet(tmp_path / f"{collection}.csv", [{"ID": id, "Label": "0"} for id in ids])
    write_config(tmp_path / "config.yaml", **config())
    return tmp_path


def config(**others):
    images = "images/{id}_{colour}.png"
    collections = {name: {"sheet": f"{name}.csv", "images": images, "labels": True} for name in ("train", "test")}
    return {"collections": collections, "shards": 1, **others}


def test_the_plan_lists_every_stage(folder):
    jobs, _ = planned(folder)
    stages = ["segment", "tile", "sheet", "curate", "records", "train", "predict", "aggregate", "submit", "evaluate"]
    assert [jobs[stage] for stage in stages] == [2, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert jobs["explore_data"] == jobs["report_zip"] == jobs["browse"] == jobs["record_run"] == jobs["model_card"] == 1
    assert jobs["browse_shard"] == jobs["predict"]
    assert jobs["draw_scores"] == jobs["learn_baselines"] == 1
    assert jobs["measure_baselines"] == 2


def test_planning_and_rules_make_each_file_where_the_library_looks_for_it(folder):
    (folder / "cells.csv").write_text("ID,cell,Label\ntest-0,1,0\n")
    for name in ("train", "test"):
        sheet = [{"ID": f"{name}-{i}", "Label": "0", "well": f"A{i}"} for i in range(3)]
        write_sheet(folder / f"{name}.csv", sheet)
    collections = config()["collections"]
    collections["test"]["truth"] = {"cells": "cells.csv", "masks": "images/{id}_red.png"}
    collections["drawn"] = {"sheet": "test.csv", "labels": True, "simulate": {}}
    address = "https://localhost/{id}_{colour}.png"
    collections["fetched"] = {"sheet": "test.csv", "labels": True, "download": {"url": address}}
    for i in range(3):
        (folder / f"test-{i}.czi").touch()
    channels = {"red": 0, "green": 1, "blue": 2, "yellow": 3}
    collections["read"] = {"sheet": "test.csv", "labels": True, "images": "{id}.czi", "channels": channels}
    predicted = {"collections": ["test", "drawn", "fetched", "read"]}
    curation = {"group_by": ["well"]}
    write_config(folder / "config.yaml", collections=collections, shards=3, predict=predicted, curation=curation)
    text = snakemake(folder, "--dry-run").stdout
    made = {path for outputs in re.findall(r"^    output: (.*)$", text, re.MULTILINE) for path in outputs.split(", ")}
    made |= {str(path.relative_to(folder)) for path in folder.glob("results/sheet/**/*.csv")}
    of_one_alone = {"test": "true_states", "drawn": "simulated", "fetched": "downloaded", "read": "imported"}
    for name, own in of_one_alone.items():
        files = CollectionFiles(name, shards_of(folder / "results/sheet" / name))
        assert len(files.shards) > 1
        for kind in PATTERNS.keys() - {*of_one_alone.values(), "groups"} | {own}:
            paths = {str(files.path(kind, shard, colour)) for shard in files.shards for colour in COLOURS}
            assert paths <= made, kind
    assert str(CollectionFiles("train").path("groups")) in made


def test_calls_are_pooled_by_columns_that_the_sheets_have(folder):
    sheet = [{"ID": f"test-{i}", "Label": "0", "antibody": "A", "well": f"A{i}"} for i in range(3)]
    write_sheet(folder / "test.csv", sheet)
    write_config(folder / "config.yaml", **config(predict={"pool_by": ["well", "antibody"]}))
    assert planned(folder)[0]["pool"] == 1
    write_config(folder / "config.yaml", **config(predict={"pool_by": ["Well"]}))
    for target in ("all", "results/predictions/test/pooled.parquet"):
        refused = snakemake(folder, target, "--dry-run", check=False)
        assert refused.returncode == 1
        sentence = "the sheet of collection test has no column 'Well'; did you mean well? (known: antibody, well)"
        assert f"config key predict.pool_by: {sentence}" in refused.stdout


def test_the_rules_that_draw_list_what_their_rooms_draw(folder):
    text = snakemake(folder, "--dry-run", "all", "interpret").stdout
    outputs = dict(re.findall(r"rule (\w+):\n(?:    (?!output).*\n)*    output: (.*)", text))
    named = re.findall(r'out_dir / "(\w+)"', inspect.getsource(interpretation.draw_interpretation))
    patches = [f"patches_{layer.replace(' ', '_')}" for layer in interpretation._LAYERS]
    for rule, place, names in (
        ("explore_data", "figures", data.DATA),
        ("training_curves", "figures", training.TRAINING),
        ("draw_scores", "evaluation/test", scores.SCORES),
        ("draw_interpretation", "interpretation", [*patches, *named]),
    ):
        drawn = {f"results/{place}/{name}.{suffix}" for name in names for suffix in ("svg", "png")}
        assert set(outputs[rule].split(", ")) == drawn, rule
    page = {f"results/browser/{name}" for name in (*APP_FILES, "about.js", "test/table.js")}
    assert set(outputs["browse"].split(", ")) == page


def test_a_first_training_and_controls_are_trained_beside_the_model(folder):
    collections = config()["collections"] | {"first": {"sheet": "train.csv", "labels": True, "simulate": {}}}
    settings = {"train": {"pretraining": {"collection": "first"}}, "evaluation": {"controls": ["shuffled_labels"]}}
    write_config(folder / "config.yaml", **config() | {"collections": collections} | settings)
    jobs, shards = planned(folder)
    for rule in ("curate", "records", "train"):
        assert jobs[rule] == 1
    assert jobs["curate_pretraining"] == jobs["records_pretraining"] == jobs["pretrain"] == 1
    assert jobs["control"] == jobs["records_control"] == jobs["train_control"] == 1
    # The collection of the first training is neither predicted nor scored.
    assert jobs["predict"] == 1
    assert shards["predict"] == {"collection=test, shard=000"}
    settings["train"]["pretraining"]["collection"] = "train"
    write_config(folder / "config.yaml", **config() | {"collections": collections} | settings)
    text = snakemake(folder, "--dry-run", check=False).stdout
    assert "train.pretraining.collection: 'train' is also train.collection" in text


def test_explore_needs_sheets_and_images_only(folder):
    jobs, _ = planned(folder, "explore")
    assert dict(jobs) == {"explore_data": 1, "explore": 1}


def test_a_model_of_ones_own_is_never_trained_over(folder):
    write_stand_in(folder / "results/model")
    write_config(folder / "config.yaml", **config(model={"path": "results/model"}))
    for target in ("all", "predict_only"):
        jobs, _ = planned(folder, target)
        assert jobs["predict"] == 1
        assert not {"train", "curate", "records"} & set(jobs)


def test_a_collection_without_labels_is_explored_by_its_channels(folder):
    only = {"new": {"sheet": "test.csv", "images": "images/{id}_{colour}.png"}}
    write_config(folder / "config.yaml", collections=only)
    snakemake(folder, "explore", check=False)
    assert sorted(path.stem for path in (folder / "results/figures").glob("*.svg")) == ["figure3_channels"]


CHANNELS = {"red": 3, "green": 2, "blue": 1, "yellow": 4}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("raw/{plate}_{well}_s{site}_w{channel}.TIF", "raw/P1_{well}_s1_w{channel}.tif"),
        (
            "raw/TimePoint_1/{plate}_{well}_s{site}_w{channel}[0-9A-F]*.tif",
            "raw/TimePoint_1/P1_{well}_s1_w{channel}1A0B41F7-3F05-4B2A-9A39-2C7D4F1D7A95.TIF",
        ),
        (
            "raw/{plate}__*/r01c{well}f{site}p01-ch{channel}sk1fk1fl1.tiff",
            "raw/P1__x/r01c{well}f1p01-ch{channel}sk1fk1fl1.tiff",
        ),
        ("raw/{plate}_{well}_T0001F{site}L01A??Z01C{channel}.tif", "raw/P1_{well}_T0001F001L01A01Z01C0{channel}.tif"),
        ("raw/{plate}/{well}/{site}.ome.tif", "raw/P1/{well}/1.ome.tif"),
    ],
)
def test_fields_without_a_sheet_are_planned(folder, pattern, name):
    write_stand_in(folder / "model")

    def add(well):
        for channel in CHANNELS.values():
            path = folder / name.format(well=well, channel=channel)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    for well in range(1, 9):
        add(well)
    new = {"images": pattern, "channels": CHANNELS, "shards": 3}
    settings = {"collections": {"new": new}, "model": {"path": "model"}, "predict": {"pool_by": ["plate", "well"]}}
    write_config(folder / "config.yaml", **settings)
    jobs, shards = planned(folder, "predict_only")
    before = {path: path.read_bytes() for path in (folder / "results/sheet/new").glob("[0-9]*.csv")}
    assert jobs["segment"] == jobs["tile"] == jobs["predict"] == len(shards["segment"]) == len(before) / 2 > 1
    assert jobs["pool"] == 1
    add(9)
    planned(folder, "predict_only")
    after = {path: path.read_bytes() for path in (folder / "results/sheet/new").glob("[0-9]*.csv")}
    assert len({path for path in after if after[path] != before.get(path)}) == 2


def test_what_a_collection_without_a_sheet_lacks_is_one_sentence(folder):
    write_stand_in(folder / "model")
    (folder / "raw").mkdir()
    (folder / "raw/A1.tif").touch()
    new = {"images": "raw/{well}.tif", "channels": CHANNELS}
    settings = {"collections": {"new": new}, "model": {"path": "model"}, "predict": {"pool_by": ["Well"]}}
    write_config(folder / "config.yaml", **settings)
    refused = snakemake(folder, "predict_only", "--dry-run", check=False)
    assert "the pattern of collection new has no column 'Well'; did you mean well?" in refused.stdout
    new["images"] = "row/{well}.tif"
    write_config(folder / "config.yaml", **settings)
    refused = snakemake(folder, "predict_only", "--dry-run", check=False)
    assert refused.returncode == 1
    assert "no file is found by 'row/{well}.tif': in the working folder nothing matches row; it has" in refused.stdout


def test_parts_of_file_names_reach_the_table_of_fields(folder):
    for site in (1, 2):
        write_field(folder / "images", f"P1_A03_{site}", (0,), site, (256, 256))
    new = {"images": "images/{plate}_{well}_{site}_{colour}.png"}
    write_config(folder / "config.yaml", collections={"new": new}, shards=1, pixel_size=0.16)
    snakemake(folder, "results/sheet/new.parquet")
    table = pq.read_table(folder / "results/sheet/new.parquet", columns=["field", "status", "plate", "well", "site"])
    assert table.to_pylist() == [
        {"field": f"P1_A03_{site}", "status": "ok", "plate": "P1", "well": "A03", "site": site} for site in (1, 2)
    ]


def test_another_workflow_takes_it_as_a_module(folder):
    (folder / "Snakefile").write_text(
        f"""
configfile: "config.yaml"


module hpaloc:
    snakefile: {str(ROOT / "Snakefile")!r}
    config: config["hpaloc"]


use rule * from hpaloc as hpaloc_*


rule mine:
    input: "results/predictions/test/cells.parquet"
    output: "mine.txt"
    shell: "touch {{output}}"
"""
    )
    collections = config()["collections"] | {"first": {"sheet": "train.csv", "labels": True, "simulate": {}}}
    settings = config() | {"collections": collections, "predict": {"collections": ["test"]}}
    write_config(folder / "config.yaml", hpaloc=settings)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor"]
    planned = subprocess.run([*command, "-n", "mine"], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert {"hpaloc_segment", "hpaloc_train", "mine"} <= set(
        re.findall(r"^(?:local)?rule (\w+):", planned, re.MULTILINE)
    )
    # Its scripts find the library beside its own Snakefile.
    shard = "resources/simulated/first/000"
    subprocess.run([*command, shard], cwd=folder, check=True, capture_output=True)
    assert (folder / shard / "train-0_green.png").is_file()


def test_the_profiles_do_not_get_in_each_others_way():
    default, slurm = (
        yaml.safe_load((ROOT / name / "config.yaml").read_text()) for name in ("profiles/default", "slurm")
    )
    # A key of the default profile takes the place of the same key of the other.
    assert not {"cores", "jobs", "resources", "set-resources", "default-resources", "groups"} & set(default)
    assert {key: slurm[key] for key in default} == default
    # A rule that asks for a GPU is sent to the nodes that have one, once.
    on_gpus = set()
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"\n(?:use rule \w+ as|rule) ", path.read_text())[1:]:
            name = re.match(r"\w+", rule)[0]
            bases = (f"use rule {base} as {name} " for base in ("train", "predict"))
            if "**GPU" in rule or any(base in path.read_text() for base in bases):
                on_gpus.add(name)
    assert on_gpus == set(slurm["set-resources"])
    for of_rule in slurm["set-resources"].values():
        assert of_rule["tasks"] == 0
        assert of_rule["slurm_partition"] != slurm["default-resources"]["slurm_partition"]


def test_every_line_of_the_slurm_profile_has_its_reason():
    lines = (ROOT / "slurm/config.yaml").read_text().splitlines()
    for above, line in pairwise(lines):
        # Keys at the top; a key below them is explained with its block.
        if line and not line.startswith(("#", " ")):
            assert above.startswith("#"), line


def test_the_slurm_profile_plans_the_whole_run(folder):
    # Conda is left to the machines that have it.
    text = snakemake(folder, "--profile", ROOT / "slurm", "--sdm", "env-modules", "--dry-run").stdout
    assert "Group job cells" in text
    train = text.split("rule train:")[1].split("\n[")[0]
    assert "slurm_partition=gpu" in train
    assert "gpu=1" in train
    assert "tasks=0" in train


def test_the_linter_is_content():
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Congratulations" in done.stdout


def test_a_configuration_of_ones_own_stands_alone(folder):
    text = snakemake(folder, "--dry-run").stdout
    assert "demo-train" not in text
    assert "simulate" not in text


def test_interpret_trains_without_the_held_out_classes(folder):
    write_sheet(folder / "train.csv", [{"ID": f"train-{i}", "Label": label} for i, label in enumerate((0, 2, 14))])
    write_config(folder / "config.yaml", **config(interpretation={"held_out": [2, 14]}))
    jobs, _ = planned(folder, "interpret")
    for rule in (
        "study_cells",
        "study_networks",
        "study_morphology",
        "judge_claims",
        "draw_interpretation",
        "interpret",
    ):
        assert jobs[rule] == 1
    assert jobs["held_out"] == jobs["records_held_out"] == jobs["train_held_out"] == 1
    write_config(folder / "config.yaml", **config())
    jobs, _ = planned(folder, "interpret")
    assert jobs["interpret"] == 1
    assert not {"held_out", "train_held_out", "report_zip"} & set(jobs)
    # It is no part of the daily work.
    assert not {"judge_claims", "draw_interpretation", "interpret"} & set(planned(folder)[0])


def test_a_model_of_masked_tiles_predicts_no_others(folder):
    write_stand_in(folder / "models", mask_neighbours=True)
    write_config(folder / "config.yaml", **config(model={"path": "models"}))
    sentence = "config key tiles.mask_neighbours: is false, but the model models was trained on tiles with true"
    for target in ("all", "predict_only"):
        done = snakemake(folder, "--dry-run", target, check=False)
        assert done.returncode != 0
        assert sentence in done.stdout
    write_config(folder / "config.yaml", **config(model={"path": "models"}, tiles={"mask_neighbours": True}))
    assert planned(folder, "predict_only")[0]["predict"] == 1


def test_few_shot_needs_predictions_and_no_training(folder):
    write_stand_in(folder / "models")
    rows = [{"field": f"test-{i}", "cell": cell, "label": cell} for i in range(2) for cell in (1, 2)]
    write_sheet(folder / "few.csv", rows)
    write_config(folder / "config.yaml", **config(model={"path": "models"}, few_shot={"table": "few.csv"}))
    jobs, _ = planned(folder, "few_shot")
    assert jobs["few_shot"] == jobs["predict"] == 1
    assert not {"train", "curate", "evaluate"} & set(jobs)


def mistakes():
    def key(changed):
        changed["train"] = {"epoch": 3}

    def sheet(changed):
        changed["collections"]["train"]["sheet"] = "absent.csv"

    def collection(changed):
        changed["predict"] = {"collections": ["tset"]}

    def pattern(changed):
        changed["collections"]["train"]["images"] = "images/{id}.png"

    def training(changed):
        changed["train"] = {"collection": "other"}

    def weights(changed):
        changed["train"] = {"weights": "start.h5"}

    def model(changed):
        changed["model"] = {"path": "absent"}

    def held_out(changed):
        changed["interpretation"] = {"held_out": [2]}

    def mixtures(changed):
        changed["interpretation"] = {"mixtures": {"table": "m.csv"}}

    def mixture_table(changed):
        changed["interpretation"] = {"mixtures": {"collection": "test", "table": "m.csv"}}

    def few_shot(changed):
        changed["few_shot"] = {"table": "few.csv"}

    yield mixture_table, ["interpret"], "config key interpretation.mixtures.table: no such file: m.csv"
    yield held_out, ["interpret"], "config key interpretation.held_out: one class alone cannot be distinguished"
    yield mixtures, ["interpret"], "config key interpretation.mixtures.collection: 'mixtures' is not predicted (test)"
    yield few_shot, ["few_shot"], "config key few_shot.table: no such file: few.csv"
    yield (lambda changed: None), ["few_shot"], "config key few_shot.table: few_shot needs a table of cells"
    yield key, [], "config key train: unknown key 'epoch' (did you mean epochs?)"
    yield sheet, [], "sheet absent.csv: no such file"
    yield collection, [], "config key predict.collections: 'tset' is not among the collections (test, train)"
    yield pattern, [], "config key collections.train.images: 'images/{id}.png' lacks the placeholder {colour}"
    yield training, [], "config key train.collection: 'other' is not among the collections (test, train)"
    yield weights, [], "config key train.weights: no such file: start.h5"
    yield model, ["predict_only"], "config key model.path: there is no absent"
    yield (lambda changed: None), ["predict_only"], "config key model.path: predict_only needs a trained model"


@pytest.mark.parametrize(("change", "arguments", "sentence"), [*mistakes()])
def test_a_mistake_in_the_configuration_stops_with_one_sentence(folder, change, arguments, sentence):
    changed = config()
    change(changed)
    write_config(folder / "config.yaml", **changed)
    done = snakemake(folder, "--dry-run", *arguments, check=False)
    assert done.returncode != 0
    # The line of the sentence holds nothing else.
    assert any(line.strip().removeprefix("ConfigError: ").startswith(sentence) for line in done.stdout.splitlines()), (
        done.stdout
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ID,Label,split\ntrain-0,0,test\n", "sheet train.csv (ID train-0): split 'test' is not train or validation"),
        ("ID,Label\ntrain-0,0\ntrain-1,19\n", "line 3 (ID train-1): unknown label '19'"),
        ("ID,Label\ntrain-0,0\ntrain-0,1\n", "line 3 (ID train-0): ID train-0 is a duplicate of line 2"),
        ("ID,Label\nother,0\n", "collection train: 4 of 4 files are missing: these: images/other_red.png"),
    ],
)
def test_a_mistake_in_a_sheet_stops_with_one_sentence(folder, text, sentence):
    (folder / "train.csv").write_text(text)
    done = snakemake(folder, "--dry-run", check=False)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def test_every_rule_has_what_the_design_asks():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        assert text.startswith('"""'), path.name
        for rule in text.split("\nrule ")[1:]:
            name = rule.split(":", 1)[0]
            assert rule.split("\n", 2)[1].strip().startswith('"""'), name
            for directive in ("log:", "benchmark:", "conda:", "threads:", "mem_mb=grows(", "runtime=grows(", "script:"):
                # A file of benchmarks counts as an output, and a rule with one does not run each time.
                unmeasured = directive == "benchmark:" and name in ("describe", "estimate_atlas")
                assert directive in rule or unmeasured, f"{name} lacks {directive}"
            assert "partition" not in rule
            script = rule.split("script:")[1].split('"')[1]
            assert Path(path.parent, script).is_file(), name


@pytest.mark.parametrize(
    ("segmentation", "environment"),
    [
        ({"backend": "hpacellseg"}, "hpacellseg"),
        ({"backend": "hpacellseg", "weights": {"format": "torchscript"}}, "torchscript"),
        ({"backend": "instanseg", "weights": {"instanseg": "instanseg.pt"}}, "torchscript"),
        ({"backend": "watershed", "weights": {"format": "torchscript"}}, None),
    ],
)
def test_the_networks_of_a_backend_choose_its_environment(folder, segmentation, environment):
    (folder / "instanseg.pt").write_bytes(b"")
    write_config(folder / "config.yaml", **config(segmentation=segmentation))
    search = os.environ | {"PATH": os.pathsep.join([str(STAND_IN), os.environ["PATH"]])}
    listed = snakemake(folder, "--sdm", "conda", "--list-conda-envs", env=search).stdout
    assert set(re.findall(r"envs/(hpacellseg|torchscript)\.yaml", listed)) == {environment} - {None}


def locked_versions(name):
    """Return {package: version} of a lock file."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [
        line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith((" ", "#"))
    ]
    return {package.lower(): version for package, version in pins}


def test_the_environments_have_the_versions_of_the_lock_file():
    # The driver has a lock file of its own, hpacellseg older packages, the last three newer ones.
    others = ("driver", "hpacellseg", "spatialdata", "tensorflow-latest", "torchscript")
    names = {path.stem for path in (ROOT / "envs").glob("*.yaml")}
    locked = {name: locked_versions("requirements.lock") for name in names.difference(others)}
    locked["driver"] = locked_versions("driver.lock")
    assert locked["driver"]["snakemake"] == locked["analysis"]["snakemake"]
    for path in (ROOT / "envs").glob("*.yaml"):
        if path.stem not in locked:
            continue
        after = path.with_suffix(".post-deploy.sh")
        for pin in re.findall(r"\S+==\S+", after.read_text() if after.is_file() else ""):
            name, version = pin.split("==")
            assert locked[path.stem][name.lower()] == version, f"{after.name}: {pin}"
        for entry in yaml.safe_load(path.read_text())["dependencies"]:
            for pin in entry["pip"] if isinstance(entry, dict) else [entry]:
                if pin.startswith("python") or pin == "pip":
                    continue
                name, version = pin.replace("==", "=").split("=")
                name = {"tensorflow[and-cuda]": "tensorflow-cpu"}.get(name, name)
                assert locked[path.stem][name.lower()] == version, f"{path.name}: {pin}"
