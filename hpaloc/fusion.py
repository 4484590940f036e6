"""The decision on fused probabilities, fitted after the training of the network and of the regression."""

from collections.abc import Sequence
from pathlib import Path

from hpaloc.baselines.prediction import regress_cells
from hpaloc.network.calls import fuse, settle_negative
from hpaloc.network.device import choose_precision, precision_policy, select_device
from hpaloc.network.fusion import write_fusion
from hpaloc.network.loading import load_folder
from hpaloc.progress import log
from hpaloc.records import training_dataset
from hpaloc.training.decision import fit_decision, predict_examples, score_decision
from hpaloc.training.train import judged_examples, read_parts


def learn_fusion(
    model_dir: Path,
    dataset_dir: Path,
    examples: Path,
    measures: Sequence[Path],
    weight: float,
    batch_size: int = 64,
    precision: str = "auto",
    gpu: str = "auto",
    threads: int | None = None,
) -> None:
    """Fit thresholds, temperature and prototypes to the fused probabilities, and write fusion.json of a model folder.

    The cells are those on which the training fitted thresholds.json, without synthetic ones, which are not measured.

    model_dir: with the network and baselines.json
    dataset_dir: has the folders train and validation of TFRecords
    examples: their table
    measures: tables of ``measures.measure_shard`` of all shards of the collection that trains
    weight: of the regression, see ``calls.fuse``

    Raises ModelError for a folder that was changed or has no baselines, NoGpuError.
    """
    select_device(gpu, threads)
    with precision_policy(choose_precision(precision)):
        network, config, decision = load_folder(model_dir)
        part, rows = judged_examples(read_parts(examples, config["head"]))
        cells = training_dataset(dataset_dir / part, examples, config["channels"], config["input_size"])
        probabilities, labels = predict_examples(network, cells.take(len(rows)), batch_size)
    measured = (rows["origin"] != "synthetic").to_numpy()
    rows, probabilities, labels = rows[measured], probabilities[measured], labels[measured]
    regression = regress_cells(model_dir, measures, list(zip(rows["field"], rows["cell"], strict=True)))
    alone = settle_negative(probabilities, decision["negative_rule"])
    fused = fuse(alone, regression, weight, config["head"] == "softmax")
    fitted, scores = fit_decision(fused, labels, rows, config["head"], part)
    write_fusion(model_dir, weight, fitted, scores, score_decision(alone, labels, rows, decision))
    log.info("fusion: fitted on %d cells of the part %s", len(rows), part)
