"""Make the pictures of README.md in docs/pictures/ from a finished demo: its cell browser and confusion matrix."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

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


if __name__ == "__main__":
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results").resolve()
    browser_picture(results / "browser" / "index.html").save(PICTURES / "browser.webp", quality=82, method=6)
    confusion = Image.open(results / "evaluation" / "test" / "confusion.png").convert("RGB")
    confusion.save(PICTURES / "confusion.webp", lossless=True, method=6)
