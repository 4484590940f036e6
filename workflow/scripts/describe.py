"""Describe a folder of images: a configuration, printed and written, and a contact sheet."""

import os
from pathlib import Path

from hpaloc.describing.configuration import format_description
from hpaloc.describing.description import describe
from hpaloc.figures.contact_sheet import draw_contact_sheet
from hpaloc.files import write_if_changed
from hpaloc.progress import log_to


def main(job, terminal):
    folder = Path(job.params.folder)
    found = describe(job.params.images)
    text = format_description(found, folder)
    draw_contact_sheet(found, folder / "contact_sheet.png")
    write_if_changed(folder / "config.yaml", text)
    print(text, file=terminal, flush=True)


if __name__ == "__main__":
    # The log takes all that is printed, except the description.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as terminal:
        log_to(snakemake.log[0])
        main(snakemake, terminal)
