"""The cell browser.

Inputs: a collection's images, masks, tables and predictions, the model, and the truth of the scored cells.
Outputs: the pictures of fields and cells of each shard; index.html, which opens from disk.
Steps: choose fields, draw them, map the activation of each cell; join the tables, map the embeddings.
"""

# The browser shows the labels of the field for cells of other collections, and says so.
TRUE_CELLS = [name for name in SCORED if truth_files(name)]


rule browse_shard:
    """Draw the fields and cells of one shard for the browser, with the activation map of each cell."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
        images=made_images,
        segmentation="results/segmentation/{collection}/{shard}",
        cells="results/cells/{collection}/{shard}.parquet",
        fields="results/cells/{collection}/{shard}.fields.parquet",
        tiles=[f"results/tiles/{{collection}}/{{shard}}/{colour}.tfrecord" for colour in COLOURS],
        predictions="results/predictions/{collection}/shards/{shard}.parquet",
        model=model_files,
    output:
        directory("results/browser/{collection}/{shard}"),
    log:
        "logs/browse_shard/{collection}/{shard}.log",
    benchmark:
        "benchmarks/browse_shard/{collection}/{shard}.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        model=MODEL,
        model_version=model_version,
        # The limit is divided evenly among the shards of a collection.
        most_fields=lambda wildcards: -(-config["browser"]["fields"] // len(SHARDS[wildcards.collection])),
        field_size=config["browser"]["field_size"],
        version=code_of("browser.activation", "browser.pictures"),
    script:
        "../scripts/browse_shard.py"


rule browse:
    """Join the predicted collections into one cell browser."""
    input:
        tables=expand(
            "results/predictions/{collection}/{name}",
            collection=PREDICTED,
            name=["cells.parquet", "fields.parquet", "cells.h5ad"],
        ),
        pictures=of_shards("pictures", *PREDICTED),
        truth=expand("results/evaluation/{collection}/cells.parquet", collection=TRUE_CELLS),
    output:
        expand("results/browser/{name}", name=BROWSER_FILES),
        "results/browser/about.js",
        expand("results/browser/{collection}/table.js", collection=PREDICTED),
    log:
        "logs/browse.log",
    benchmark:
        "benchmarks/browse.tsv"
    conda:
        "../../envs/analysis.yaml"
    # More threads make t-SNE of scikit-learn slower if the machine has other work.
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        collections=[{"name": name, "shards": SHARDS[name]} for name in PREDICTED],
        true_cells=TRUE_CELLS,
        seed=config["seed"],
        version=code_of("browser.page"),
        app=files_version(*(f"browser/app/{name}" for name in BROWSER_FILES)),
    script:
        "../scripts/browse.py"
