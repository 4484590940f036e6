"""The decision on fused probabilities, fitted after the training of the network and of the regression."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpaloc.baselines.prediction import regress_cells
from hpaloc.examples import LABEL_COLUMNS
from hpaloc.network.calls import fuse, settle_negative
from hpaloc.network.folder import check_folder, read_settings
from hpaloc.network.fusion import write_fusion
from hpaloc.network.options import ModelError
from hpaloc.progress import log
from hpaloc.training.decision import fit_decision, score_decision
from hpaloc.training.parts import judged_examples, read_parts


def learn_fusion(model_dir: Path, examples: Path, measures: Sequence[Path], weight: float) -> None:
    """Fit thresholds, temperature and prototypes to the fused probabilities, and write fusion.json of a model folder.

    The cells are those on which the training fitted thresholds.json, without synthetic ones, which are not measured;
    the probabilities of the network are those that the training kept (judged.npy), so the network is not run. This file
    has no checksum, since a folder that is copied does not need it.

    model_dir: with the network, judged.npy and baselines.json
    examples: the table of examples that trained the network
    measures: tables of ``measures.measure_shard`` of all shards of the collection that trains
    weight: of the regression, see ``calls.fuse``

    Raises ModelError for a folder that was changed, has no baselines, or whose judged.npy has another number of cells,
    and TrainingError for examples that cannot train.
    """
    check_folder(model_dir)
    config, decision = read_settings(model_dir)
    part, rows = judged_examples(read_parts(examples, config["head"]))
    probabilities = np.load(model_dir / "judged.npy", allow_pickle=False)
    if len(probabilities) != len(rows):
        raise ModelError(f"{model_dir / 'judged.npy'}: has {len(probabilities)} cells, but {examples} has {len(rows)}")
    measured = (rows["origin"] != "synthetic").to_numpy()
    rows, probabilities = rows[measured], probabilities[measured]
    labels = rows[list(LABEL_COLUMNS)].to_numpy(np.float32)
    regression = regress_cells(model_dir, measures, list(zip(rows["field"], rows["cell"], strict=True)))
    alone = settle_negative(probabilities, decision["negative_rule"])
    fused = fuse(alone, regression, weight, config["head"] == "softmax")
    fitted, scores = fit_decision(fused, labels, rows, config["head"], part)
    write_fusion(model_dir, weight, fitted, scores, score_decision(alone, labels, rows, decision))
    log.info("fusion: fitted on %d cells of the part %s", len(rows), part)
