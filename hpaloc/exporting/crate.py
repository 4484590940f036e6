"""A run as RO-Crate, one zip of its tables, scores and settings that says of each file what it is and from where.

The metadata follow the profile Workflow Run Crate, https://w3id.org/ro/wfrun/workflow/0.5.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from hpaloc import __version__
from hpaloc.files import atomic_path, digest
from hpaloc.progress import log

_PROFILES = ("https://w3id.org/ro/wfrun/process/0.5", "https://w3id.org/ro/wfrun/workflow/0.5")
# The terms of these profiles that RO-Crate 1.1 lacks, such as sha256.
_TERMS = "https://w3id.org/ro/terms/workflow-run/context"
_FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".yaml": "application/yaml",
}
# By the folder and name of a file in the results; docs/formats.md has the columns.
_DESCRIPTIONS = {
    "run/config.yaml": "the configuration of the run, with every default",
    "run/software.csv": "packages and versions",
    "run/jobs.csv": "time and memory of each job",
    "sheet/rejected.csv": "the fields that were left out, with the reason",
    "sheet/warnings.csv": "what is odd about fields",
    "sheet/summary.csv": "the numbers of fields and cells that came in and went out",
    "predictions/cells.parquet": "probabilities and called locations of each cell",
    "predictions/fields.parquet": "calls of each field, from its cells",
    "predictions/proteins.parquet": "calls of each antibody, from its cells",
    "predictions/pooled.parquet": "calls by columns of the sheet",
    "predictions/submission.csv": "calls and masks in the format of the 2021 Kaggle competition",
    "evaluation/metrics.json": "all scores, with intervals",
    "evaluation/cells.parquet": "the true locations of the scored cells",
    "model/config.json": "the network, its input and its training",
    "model/thresholds.json": "the thresholds of calls",
    "model/fusion.json": "the weight of the regression in the probabilities, and the thresholds of calls from these",
    "model/checksums.json": "the digests of the files of the model, which is not in the crate",
    "model/card.md": "the model card",
    "model/history.csv": "one row per epoch of the training",
}


def _describe(name: str) -> str:
    """Return what a file is, by its name in the crate."""
    parts = Path(name).parts
    folder = parts[1] if parts[0] == "results" else parts[0]
    if known := _DESCRIPTIONS.get(f"{folder}/{parts[-1]}"):
        return known
    if folder == "sheet":
        return "every field with its status, levels and warnings"
    return "scores" if folder == "evaluation" else "code of the workflow"


def _properties(name: str, path: Path) -> dict[str, str]:
    known = {"encodingFormat": _FORMATS[path.suffix]} if path.suffix in _FORMATS else {}
    return {"name": name, "description": _describe(name), "sha256": digest(path), **known}


def write_crate(
    out: Path,
    collections: Sequence[str],
    code: Mapping[str, Path],
    read: Mapping[str, Path],
    made: Mapping[str, Path],
) -> None:
    """Write a run as one zip, atomically.

    collections: those that the run predicts
    code: name in the crate to file of the workflow; ``Snakefile`` is its main file
    read, made: the same of what the run was started with, and of what it made
    """
    ended = datetime.fromtimestamp(int(max(path.stat().st_mtime for path in made.values())), UTC)
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(_TERMS)
    crate.name = f"Run of hpaloc over {', '.join(collections)}"
    crate.description = (
        "Subcellular locations of a stained protein in single cells, predicted by the workflow hpaloc: tables of "
        "cells, fields and proteins, scores, configuration and what the model is. Images and network are not in it."
    )
    crate.datePublished = ended
    # A run does not know under which terms its tables may be shared.
    unknown = {"@type": "CreativeWork", "name": "not stated", "description": "ask whoever gave you this crate"}
    crate.license = crate.add(ContextEntity(crate, "#licence", properties=unknown))
    workflow = crate.add_workflow(
        code["Snakefile"],
        "Snakefile",
        properties=_properties("Snakefile", code["Snakefile"])
        | {"name": "hpaloc", "version": __version__, "license": {"@id": "https://spdx.org/licenses/BSD-3-Clause"}},
        main=True,
        lang="snakemake",
        record_size=True,
    )
    written = {}
    for name, path in {**code, **read, **made}.items():
        if name != "Snakefile":
            written[name] = crate.add_file(path, name, properties=_properties(name, path), record_size=True)
    action = crate.add_action(
        workflow,
        "#run",
        object=[written[name] for name in read],
        result=[written[name] for name in made],
        properties={
            "name": f"Run of hpaloc {__version__}",
            "endTime": ended.isoformat(),
            "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
        },
    )
    crate.root_dataset["mentions"] = action
    for profile in _PROFILES:
        said = {"@type": "CreativeWork", "name": "Workflow Run RO-Crate profile", "version": profile.rpartition("/")[2]}
        crate.root_dataset.append_to("conformsTo", crate.add(ContextEntity(crate, profile, properties=said)))
    with atomic_path(out) as temporary:
        crate.write_zip(temporary)
    log.info("%d files", len(written) + 1)
