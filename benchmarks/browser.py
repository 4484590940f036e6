"""Measure how long a user waits in the cell browser with many cells, in a real Chromium.

    python benchmarks/browser.py [--cells 50000]

Prints, for that number of cells and for a hundredth of it: the size of the folder, the seconds until the first cells
appear, and the median and worst milliseconds of filtering, of sorting, of drawing the map, and of one frame while the
gallery scrolls from top to end. Needs playwright and an installed Chromium.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "tests/support")]

from browsed_cells import chromium, large_browser  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

SCROLL = """() => new Promise((resolve) => {
  const gallery = document.getElementById('gallery'), frames = []
  let last = performance.now(), step = 0
  const next = (now) => {
    frames.push(now - last)
    last = now
    if (step === 120) return resolve(frames.slice(1))
    step++
    gallery.scrollTop = (gallery.scrollHeight * step) / 120
    requestAnimationFrame(next)
  }
  requestAnimationFrame(next)
})"""


def middle_and_worst(times: list[float]) -> str:
    """Return the median and the greatest of some times as text."""
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2]:8.1f} {ordered[-1]:8.1f}"


def measure(folder: Path, browser) -> None:
    """Print what one waits for in the page of ``folder``."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    files = sum(path.is_file() for path in folder.rglob("*"))
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    start = time.perf_counter()
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#gallery .card canvas[data-drawn]")
    print(f"  folder: {size / 1e6:.0f} MB in {files} files; first cells after {time.perf_counter() - start:.1f} s")
    for value in (0, 14, 16, 18):
        page.check(f"input[name=location][value='{value}']")
    page.click("#reset")
    page.fill("#filter-field", "field-00")
    page.click("#reset")
    for order in ("surest", "doubt", "field", "antibody", "location"):
        page.select_option("#sort", order)
    for value in ("confidence", "agreement", "location"):
        page.select_option("#colour-by", value)
    frames = page.evaluate(SCROLL)
    taken = page.evaluate("performance.getEntriesByType('measure').map((one) => [one.name, one.duration])")
    print("                 median    worst")
    for name in ("filter", "sort", "map"):
        print(f"  {name:<10} ms {middle_and_worst([duration for of, duration in taken if of == name])}")
    print(f"  {'frame':<10} ms {middle_and_worst(frames)}")
    page.close()


def main() -> None:
    """Measure with the cells asked for and with a hundredth of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000)
    most = parser.parse_args().cells
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for cells in (most // 100, most):
            print(f"{cells} cells")
            measure(large_browser(Path(folder, str(cells)), cells), browser)
        browser.close()


if __name__ == "__main__":
    main()
