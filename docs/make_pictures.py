"""Make the pictures in docs/pictures/: browser and confusion matrix of a finished demo, and the levels of a field."""

import io
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.levels import WHITE_FACTOR
from hpaloc.measuring import measure_field
from hpaloc.simulate.field import simulate_field

PICTURES = Path(__file__).resolve().parent / "pictures"


def browser_picture(page_file: Path) -> Image.Image:
    """Return a picture of a cell browser with the cells sorted by area and the second one open."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        # A window that the gallery fills, enlarged so that its text is readable on a narrower page.
        page = browser.new_page(viewport={"width": 1228, "height": 812}, device_scale_factor=1.4)
        page.goto(page_file.as_uri())
        page.wait_for_selector(".card")
        page.locator("select", has_text="Area, largest first").select_option(label="Area, largest first")
        page.click(".card >> nth=1")
        page.mouse.move(0, 0)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(2000)
        taken = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(taken)).convert("RGB")


def levels_picture() -> Image.Image:
    """Return a picture of the grey levels of green in a simulated field, with the levels measured on them."""
    field = simulate_field("levels", (0,), 1, (1024, 1024), pixel_size=0.16)
    row, _ = measure_field("levels", field.images, field.cells, field.nuclei, 0.16)
    green = field.images["green"]
    background, white = row["green_background"], row["green_white"]
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    bins = np.arange(257) - 0.5
    axes.hist(green[field.cells == 0], bins, histtype="step", color="0.6", label="outside the cells")
    axes.hist(green[field.cells > 0], bins, histtype="stepfilled", color="#2a7d2a", alpha=0.5, label="in cells")
    for level, name in (
        (background, "background"),
        (background + (white - background) / WHITE_FACTOR, "bright"),
        (white, "white"),
    ):
        axes.axvline(level, color="black", linewidth=1)
        axes.annotate(
            name, (level, 0.97), xycoords=("data", "axes fraction"), xytext=(3, 0), va="top", textcoords="offset points"
        )
    axes.set(yscale="log", xlabel="grey level of green", ylabel="pixels", xlim=(-5, max(260, white + 25)))
    axes.legend(loc=(0.56, 0.6), frameon=False)
    taken = io.BytesIO()
    figure.savefig(taken, dpi=130)
    return Image.open(taken).convert("RGB")


if __name__ == "__main__":
    levels_picture().save(PICTURES / "levels.webp", lossless=True, method=6)
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results").resolve()
    browser_picture(results / "browser" / "index.html").save(PICTURES / "browser.webp", quality=82, method=6)
    confusion = Image.open(results / "evaluation" / "test" / "confusion.png").convert("RGB")
    confusion.save(PICTURES / "confusion.webp", lossless=True, method=6)
