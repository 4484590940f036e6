"""The model card: a page about the input, output, training data, scores and limits of a model folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from hpaloc.baselines.record import load_baselines
from hpaloc.classes import NAMES
from hpaloc.files import write_text
from hpaloc.network.folder import read_settings
from hpaloc.network.fusion import decision_in_use

# What the card says of the cells of each of ``curation.ORIGINS``.
_ORIGINS = {"real": "as labelled", "relabelled": "relabelled Negative", "synthetic": "darkened to be Negative"}


def write_card(
    model_dir: Path,
    examples: Path,
    out: Path,
    images: Sequence[str] = (),
    cross_validated: str | None = None,
    fused: bool = True,
) -> None:
    """Write the card of a model folder, as Markdown; ``examples`` is the table of the cells that trained it.

    images: from ``config.describe_training_images``
    cross_validated: the line of ``cross_validation.describe_scores``, if there is a cross-validation
    fused: whether the network is fused with its regression, if the folder has a fusion

    Raises ModelError for a folder whose files are invalid.
    """
    folder = Path(model_dir)
    config, _ = read_settings(folder)
    table = pq.read_table(examples, columns=["part", "field", "origin", "copy"]).to_pandas()
    parts = {part: table[table["part"] == part] for part in ("train", "validation")}
    history, decision = pd.read_csv(folder / "history.csv"), decision_in_use(folder, fused)
    write_text(out, model_card(config, decision, history, parts, images, load_baselines(folder), cross_validated))


def model_card(
    config: Mapping[str, Any],
    decision: Mapping[str, Any],
    history: pd.DataFrame,
    parts: Mapping[str, pd.DataFrame],
    images: Sequence[str] = (),
    baselines: Mapping[str, Any] | None = None,
    cross_validated: str | None = None,
) -> str:
    """Return the model card, a Markdown page: input, output, training data, scores, limits.

    decision: thresholds.json, or fusion.json if the network is fused with its regression
    baselines: from ``baselines.record.load_baselines``
    images, cross_validated: as for ``write_card``
    """
    absent = [name for name in NAMES if not config["examples"]["train"][name]]
    decided = "fusion.json" if "weight" in decision else "thresholds.json"
    return "\n".join(
        [
            "# Model card",
            "",
            f"A ResNet-50 that predicts the subcellular location of a stained protein in one cell, trained by hpaloc "
            f"{config['versions']['hpaloc']}.",
            "",
            "## Input and output",
            "",
            f"- Tiles of one cell, {config['input_size']} px, colours {', '.join(config['channels'])}; preparation in "
            "config.json.",
            f"- Probabilities of {len(NAMES)} classes ({config['head']}), label sets by {decided}, an embedding "
            f"of {config['units']} numbers.",
            f"- Negative by the rule `{decision['negative_rule']}`.",
            *(
                [
                    "- The probabilities are those of the network fused with a logistic regression on shape and light, "
                    f"whose weight in the logits is {decision['weight']:g}."
                ]
                if "weight" in decision
                else []
            ),
            "",
            *_training_data(config, decision, parts, images),
            *_scores(config, decision, history, baselines),
            *([cross_validated, ""] if cross_validated else []),
            "## Limits",
            "",
            "- A cell inherits the label of its field, unless per-cell truth was given; cells that differ from their "
            "neighbours are mislabelled in the training data.",
            f"- Never seen in training: {', '.join(absent)}." if absent else "- Every class was seen in training.",
            "- Microscope, staining and cell lines other than those of the training fields were not tested.",
            f"- Start: {config['train']['weights']}; precision {config['precision']}; device {config['device']}; seed "
            f"{config['seed']}.",
            "",
        ]
    )


def _training_data(
    config: Mapping[str, Any],
    decision: Mapping[str, Any],
    parts: Mapping[str, pd.DataFrame],
    images: Sequence[str],
) -> list[str]:
    # A cell of a rare location may be repeated; copy 0 is the cell itself.
    cells = {part: examples[examples["copy"] == 0] for part, examples in parts.items()}
    counts = Counter(cells["train"]["origin"]).most_common()
    origins = ", ".join(f"{count} {_ORIGINS[origin]}" for origin, count in counts)
    copies = len(parts["train"]) - len(cells["train"])
    copied = f" and {copies} copies of cells of rare locations" if copies else ""
    return [
        "## Training data",
        "",
        f"{len(cells['train'])} cells of {cells['train']['field'].nunique()} fields ({origins}){copied}; validation: "
        f"{len(cells['validation'])} cells of {cells['validation']['field'].nunique()} other fields.",
        "",
        *(f"- {sentence}" for sentence in images),
        *([""] if images else []),
        f"| # | class | train{' with copies' if copies else ''} | validation | class weight | threshold |",
        "|---|---|---|---|---|---|",
        *(
            f"| {index} | {name} | {config['examples']['train'][name]} | {config['examples']['validation'][name]} "
            f"| {config['class_weights'][name]:.3f} | {(decision['thresholds'] or {}).get(name, '')} |"
            for index, name in enumerate(NAMES)
        ),
        "",
    ]


def _scores(
    config: Mapping[str, Any],
    decision: Mapping[str, Any],
    history: pd.DataFrame,
    baselines: Mapping[str, Any] | None,
) -> list[str]:
    scores = {"": {name: value for name, value in config["scores"].items() if name not in ("part", "cells")}}
    if "weight" in decision:
        # The training may have scored synthetic cells too, which are not fused.
        scores = {"": decision["scores"], ", network alone": decision["network_scores"]}
    of_baselines = baselines["validation_accuracy"] if baselines else {}
    best = history.iloc[config["best_epoch"]]
    prefix = "val_" if decision["fitted_on"] == "validation" else ""
    return [
        f"## Scores on the {decision['cells']} {decision['fitted_on']} cells",
        "",
        *(
            f"- {name.replace('_', ' ')}{of}: {value:.4g}"
            for of, values in scores.items()
            for name, value in sorted(values.items())
        ),
        *(f"- accuracy of the baseline {name.replace('_', ' ')}: {value:.4g}" for name, value in of_baselines.items()),
        f"- epoch {config['best_epoch']} of {len(history)}: loss {best[prefix + 'loss']:.4f}, AUC "
        f"{best[prefix + 'auc']:.4f} (one view)",
        "",
        "Thresholds, the rule for Negative and the epoch were chosen on these same cells, so quote a score on "
        "other fields (evaluation/metrics.json). Validation cells passed the filters of training."
        + (
            " Cells that a rule made Negative are among them, and are left out of the scores without made negatives."
            if any(name.endswith("_without_made_negatives") for name in scores[""])
            else ""
        )
        if prefix
        else f"There was no validation part, so these are scores of {decision['cells']} of the cells that trained the "
        "network and say nothing about others; quote a score on other fields (evaluation/metrics.json).",
        "",
    ]
