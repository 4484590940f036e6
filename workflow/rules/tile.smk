"""Tiling.

Inputs: a shard's manifest and its masks.
Outputs: the table of its cells, the table of its fields, and one TFRecord of tiles per colour.
Steps: read each field once, measure its cells, crop, pad, resize, write.
"""


rule tile:
    """Measure the cells of one shard and crop a tile per cell and colour."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
        masks="results/segmentation/{collection}/{shard}",
        images=made_images,
    output:
        cells="results/cells/{collection}/{shard}.parquet",
        fields="results/cells/{collection}/{shard}.fields.parquet",
        tiles=[f"results/tiles/{{collection}}/{{shard}}/{colour}.tfrecord" for colour in COLOURS],
    log:
        "logs/tile/{collection}/{shard}.log",
    benchmark:
        "benchmarks/tile/{collection}/{shard}.tsv"
    conda:
        "../../envs/segmentation.yaml"
    threads: 4
    resources:
        mem_mb=grows(6000),
        runtime=grows(120),
    params:
        tiles=tiles_params,
        version=code_of("tiles"),
    script:
        "../scripts/tile.py"
