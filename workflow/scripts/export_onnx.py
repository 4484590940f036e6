"""Write the model of the run with its preprocessing as ONNX."""

from pathlib import Path

from hpaloc.exporting.onnx import write_onnx
from hpaloc.progress import log_to


def main(job):
    write_onnx(Path(job.params.model), Path(job.output[0]), job.params.views)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
