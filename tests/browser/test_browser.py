"""The cell browser: its files, and the page in a real Chromium, opened from disk."""

import base64
import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager

import cv2
import numpy as np
import pandas as pd
import pytest
from browsed_cells import HOSTILE, WORSE, chromium, large_browser, rename_fields, small_browser, small_files, sources
from workflow_runs import read_rows

from hpaloc.browser.page import (
    APP,
    APP_FILES,
    collection_table,
    embedding_map,
    nearest_cells,
    write_page,
)
from hpaloc.browser.pictures import COLUMNS, PLANES, ROWS, outlines, script, sheet, shown_fields, sprite
from hpaloc.delimited import SheetError
from hpaloc.interpretation.few_shot import example_rows, read_examples


def read_script(path):
    """Return what a data script delivers."""
    text = path.read_text()
    return json.loads(json.loads(text[len("hpaloc.deliver(") : -len(")\n")]))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_browser(tmp_path_factory.mktemp("browser"))


# The files.


def test_every_cell_is_in_the_table_once_in_the_order_of_location_and_confidence(small):
    folder, cells = small
    table = read_script(folder / "small/table.js")
    unpacked = {
        name: np.frombuffer(base64.b64decode(packed["data"]), packed["type"]) for name, packed in table["cells"].items()
    }
    found = {(table["fields"]["id"][f], int(c)) for f, c in zip(unpacked["field"], unpacked["cell"], strict=True)}
    assert table["n"] == len(cells) == len(unpacked["cell"])
    assert found == set(zip(cells["field"], cells["cell"], strict=True))
    # The likeliest location is that of the probabilities themselves, and not of the rounded ones.
    called = pd.read_parquet(small_files(folder).path("pooled_cells")).set_index(["field", "cell"])
    keys = [(table["fields"]["id"][f], int(c)) for f, c in zip(unpacked["field"], unpacked["cell"], strict=True)]
    p = called.loc[keys, [f"p_{index}" for index in range(19)]].to_numpy()
    assert (unpacked["likeliest"] == p.argmax(axis=1)).all()
    p = unpacked["p"].reshape(len(cells), -1)
    order = [(int(row.argmax()), -int(row.max())) for row in p]
    assert order == sorted(order)
    assert (unpacked["truth"] == -1).sum() == 1
    assert table["left_out"] == {"cells": 0, "fields": 0, "rejected": 0}


def test_the_page_has_no_other_columns_of_the_sheet(tmp_path):
    folder, _ = small_browser(tmp_path, ids=("a", "b"))
    files = small_files(folder)
    files.path("columns").parent.mkdir(parents=True, exist_ok=True)
    files.path("columns").write_text("id,patient\nb,Jane\na,John\n")
    write_page(folder, [files])
    assert not [path for path in folder.rglob("*") if path.is_file() and b"Jane" in path.read_bytes()]


def test_fewer_fields_are_shown_where_asked_and_the_page_says_so(tmp_path):
    folder, cells = small_browser(tmp_path, ids=("a", "b", "c"), most_fields=2)
    table = read_script(folder / "small/table.js")
    assert len(table["fields"]["id"]) == 2
    assert table["left_out"]["fields"] == 1
    assert table["n"] + table["left_out"]["cells"] == len(cells)


def test_the_choice_of_fields_hardly_changes_when_one_is_added():
    fields = [f"field{number}" for number in range(50)]
    before, after = shown_fields(fields, 20), shown_fields([*fields, "another"], 20)
    assert len(before) == 20
    assert len(before - after) <= 1


def test_tables_of_different_cells_are_refused(small, tmp_path):
    folder, _ = small
    shutil.copytree(folder.parent, tmp_path / "results")
    files = small_files(tmp_path / "results/browser")
    pd.read_parquet(files.path("pooled_cells")).iloc[1:].to_parquet(files.path("pooled_cells"))
    with pytest.raises(ValueError, match=r"cells\.h5ad: has \d+ cells, cells\.parquet next to it \d+"):
        collection_table(files)


def test_an_outline_runs_around_its_cell():
    labels = np.zeros((40, 60), np.uint16)
    labels[10:30, 20:50] = 7
    traced = outlines(labels, {7: (10, 20, 30, 50)}, scale=0.5)
    points = np.array(traced[7]).reshape(-1, 2) / 10
    np.testing.assert_allclose(points.min(axis=0), (10.25, 5.25), atol=0.3)
    np.testing.assert_allclose(points.max(axis=0), (24.75, 14.75), atol=0.3)


def test_a_sprite_is_padded_like_a_tile_and_stands_at_its_place():
    image = np.zeros((20, 30), np.uint8)
    image[5:9, 10:20] = 200
    of_cell = sprite(image, (5, 10, 9, 20), 20)
    assert of_cell[:4].max() == 0
    assert of_cell[8:12].min() > 150
    planes = [np.full((len(PLANES), 8, 8), value, np.uint8) for value in range(1, COLUMNS + 3)]
    laid = sheet(planes)
    assert laid.shape == (len(PLANES) * ROWS * 8, COLUMNS * 8)
    assert laid[8, 8] == COLUMNS + 2
    assert laid[ROWS * 8, 8] == 2


def test_neighbours_are_near_and_never_the_cell_itself():
    generator = np.random.default_rng(0)
    groups = np.repeat([0.0, 50.0], 30)[:, None] + generator.normal(size=(60, 5))
    near = nearest_cells(groups, 5)
    assert ((near < 30) == (np.arange(60) < 30)[:, None]).all()
    assert (near != np.arange(60)[:, None]).all()
    assert (nearest_cells(groups[:3], 5)[:, 2:] == -1).all()
    twice = np.zeros((4, 5))
    assert (nearest_cells(twice, 3) != np.arange(4)[:, None]).all()


@pytest.mark.parametrize("n", [0, 1, 4, 40])
def test_a_map_of_any_number_of_cells_stays_in_its_frame(n):
    placed = embedding_map(np.random.default_rng(0).normal(size=(n, 3)))
    assert placed.shape == (n, 2)
    assert np.isfinite(placed).all()
    assert np.abs(placed).max(initial=0) <= 1


def test_cells_beyond_the_mapped_stand_among_their_neighbours(monkeypatch):
    monkeypatch.setattr("hpaloc.browser.page._MAPPED", 60)
    generator = np.random.default_rng(0)
    groups = np.repeat([0.0, 80.0], 100)[:, None] + generator.normal(size=(200, 5))
    placed = embedding_map(groups)
    centres = placed[:100].mean(axis=0), placed[100:].mean(axis=0)
    nearer = np.linalg.norm(placed - centres[0], axis=1) < np.linalg.norm(placed - centres[1], axis=1)
    assert (nearer == (np.arange(200) < 100)).all()


def test_a_data_script_is_one_text_and_no_code():
    value = {"id": '</script><!-- \u2028 " \\ ` ${x}', "__proto__": [1]}
    text = script(value)
    assert re.fullmatch(r'hpaloc\.deliver\("(?:[^"\\\n\u2028]|\\.)*"\)\n', text)
    assert json.loads(json.loads(text[len("hpaloc.deliver(") : -2])) == value


def test_the_bundle_is_of_these_sources():
    names = sorted(
        path.name
        for path in sources().iterdir()
        if re.search(r"\.jsx?$", path.name) or path.name == "package-lock.json"
    )
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0".encode() + (sources() / name).read_bytes())
    first = (APP / "browser.js").read_text().split("\n", 1)[0]
    assert digest.hexdigest() in first, "the sources changed: make browser-assets"


@pytest.fixture(scope="module")
def fewer(tmp_path_factory):
    return small_browser(tmp_path_factory.mktemp("fewer"), lacking=("red", "yellow"))


def test_the_table_names_the_colours_that_a_collection_lacks(small, fewer):
    assert "lacks" not in read_script(small[0] / "small/table.js")
    assert read_script(fewer[0] / "small/table.js")["lacks"] == ["red", "yellow"]


def test_a_colour_that_a_collection_lacks_is_black(small, fewer):
    for kind, planes in (("sprites", PLANES), ("fields", PLANES[:4])):
        drawn = []
        for folder, _ in (small, fewer):
            image = base64.b64decode(read_script(folder / f"small/000/{kind}/00000.js")["image"])
            grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
            drawn.append(dict(zip(planes, np.split(grey, len(planes)), strict=True)))
        for plane in planes:
            if plane in ("red", "yellow"):
                assert drawn[0][plane].max() > 100
                assert drawn[1][plane].max() == 0
            elif plane in ("green", "blue"):
                np.testing.assert_allclose(drawn[1][plane].mean(), drawn[0][plane].mean(), rtol=0.02)


def test_the_licence_of_every_part_is_there():
    licences = (APP / "LICENCES.txt").read_text()
    for part in json.loads((sources() / "package.json").read_text())["dependencies"]:
        assert f"{part} " in licences


def test_the_page_reaches_for_nothing_elsewhere(small):
    for name in APP_FILES:
        if name != "LICENCES.txt":
            text = (small[0] / name).read_text()
            found = set(re.findall(r"https?://[\w./-]+", text))
            assert all(address.startswith("http://www.w3.org/") for address in found), found


# The page in a real browser.

needs_chromium = pytest.mark.skipif(
    chromium() is None and not os.environ.get("CI"), reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def engine():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # In a container Chromium cannot make its sandbox; the page is ours.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(engine, folder):
    """Open the page of ``folder`` from disk; at the end nothing may have gone wrong in it."""
    page = engine.new_page(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    problems, requested = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requested.append(request.url))
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#gallery .card canvas[data-drawn]")
    yield page
    page.close()
    assert problems == []
    assert all(url.startswith(("file:", "blob:", "data:")) for url in requested)


@pytest.fixture
def page(engine, small):
    with opened(engine, small[0]) as page:
        yield page


def shown(page):
    """Return how many cells pass the filters, as the page says."""
    return int(page.inner_text("#shown strong").replace(",", ""))


def until(page, holds, seconds=20):
    """Wait until ``holds()``; the page's own policy forbids playwright to wait by a text of code."""
    for _ in range(seconds * 20):
        if holds():
            return
        page.wait_for_timeout(50)
    assert holds()


def brightest(page, selector):
    """Return the mean of each colour over a canvas."""
    return page.eval_on_selector(
        selector,
        """canvas => { const d = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
          const sum = [0, 0, 0]; for (let i = 0; i < d.length; i++) if (i % 4 < 3) sum[i % 4] += d[i]
          return sum.map(s => 4 * s / d.length) }""",
    )


@needs_chromium
def test_the_page_has_no_controls_of_a_colour_that_a_collection_lacks(engine, small, fewer):
    for (folder, _), there in ((small, ["red", "green", "blue", "yellow"]), (fewer, ["green", "blue"])):
        with opened(engine, folder) as page:
            controls = page.eval_on_selector_all(".channel input[type=checkbox]", "all => all.map((one) => one.id)")
            assert controls == [f"channel-{colour}" for colour in there]
            page.click("#gallery .card")
            page.wait_for_selector("#open-cell .colours canvas[data-drawn]")
            assert page.locator("#open-cell .colours figure").count() == len(there)
            # The controls act on their own colour.
            page.click("#channel-green")
            page.keyboard.press("4")
            assert not page.is_checked("#channel-green")
            assert page.is_checked("#channel-blue")


@needs_chromium
def test_hostile_names_are_shown_as_they_are_and_run_nothing(page, small):
    page.select_option("#sort", "field")
    page.keyboard.press("f")
    page.wait_for_selector("#field-canvas[data-drawn]")
    options = page.eval_on_selector_all("#field option", "all => all.map(one => one.textContent)")
    assert sorted(options) == sorted(HOSTILE)
    assert page.title() == "hpaloc cell browser"
    assert page.query_selector("#app img, #app script, #app b[onclick]") is None


@needs_chromium
def test_no_name_runs_anywhere_and_an_export_comes_back_as_it_was(engine, tmp_path):
    folder, _ = small_browser(tmp_path, ids=[f"f{number}" for number in range(len(WORSE))])
    cells = rename_fields(folder, WORSE, antibody=list(WORSE), cell_line=list(reversed(WORSE)))
    with opened(engine, folder) as page:
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for name in WORSE:
            # Into the filters, the field and its cell, the label, and what is said of a cell under the pointer.
            page.fill("#filter-field", name)
            page.fill("#filter-antibody", name)
            assert shown(page) == (cells["field"] == name).sum() > 0
            page.fill("#label", name[:80])
            page.click("#pick-all")
            page.hover(".card >> nth=0")
            page.click(".card >> nth=0")
            assert page.text_content("#open-cell h2").endswith(f" of {name}")
            page.click("#show-field")
            page.wait_for_selector(f"#field-canvas[data-drawn='{page.input_value('#field')}']")
            assert page.eval_on_selector("#field", "one => one.selectedOptions[0].textContent") == name
            page.click("#reset")
            page.click("#tab-gallery")
        for order in ("field", "antibody", "similar"):
            page.select_option("#sort", order)
            page.wait_for_selector("#gallery .card canvas[data-drawn]")
        page.focus("#gallery")
        page.keyboard.press("?")
        page.keyboard.press("Escape")
        # No text became an element or an attribute that runs.
        assert page.query_selector("#app img, #app script, [onerror], [onclick], [onload]") is None
        assert page.title() == "hpaloc cell browser"
        assert dialogs == []
        with page.expect_download() as download:
            page.click("#export")
        exported = download.value.path().read_bytes().decode()
    # A name with characters that nobody sees stands in no sheet, and is refused in a table too.
    (tmp_path / "examples.csv").write_bytes(exported.encode())
    with pytest.raises(SheetError, match="LINE SEPARATOR"):
        read_examples(tmp_path / "examples.csv")
    unseen = str.maketrans("", "", "\u2028\u2029")
    (tmp_path / "examples.csv").write_bytes(exported.translate(unseen).encode())
    examples = read_examples(tmp_path / "examples.csv")
    cells = cells.assign(field=cells["field"].str.translate(unseen))
    # Every cell comes back under its own name, with the label it was given.
    rows = example_rows(examples, cells)
    assert sorted(rows) == list(range(len(cells)))
    assert (examples["field"].str[:80] == examples["label"]).all()


@needs_chromium
def test_each_collection_keeps_its_selection(engine, small, tmp_path):
    shutil.copytree(small[0], tmp_path / "browser")
    shutil.copytree(tmp_path / "browser/small", tmp_path / "browser/other")
    about = read_script(tmp_path / "browser/about.js")
    about["collections"].append({"name": "other", "n": 1})
    (tmp_path / "browser/about.js").write_text(script(about))
    table = read_script(tmp_path / "browser/other/table.js")
    (tmp_path / "browser/other/table.js").write_text(script(table | {"name": "other"}))
    with opened(engine, tmp_path / "browser") as page:
        page.click("#pick-open")
        page.select_option("#collection", "other")
        until(page, lambda: page.inner_text("#picked-count").startswith("0"))
        page.wait_for_selector("#gallery .card canvas[data-drawn]")
        page.select_option("#collection", "small")
        until(page, lambda: page.inner_text("#picked-count").startswith("1"))
        page.wait_for_selector("#gallery .card canvas[data-drawn]")


@needs_chromium
def test_filters_that_leave_nothing_say_so_and_are_undone(page, small):
    page.fill("#filter-field", "no such field")
    page.wait_for_selector("text=No cell passes these filters.")
    assert shown(page) == 0
    page.click("#reset-here")
    page.wait_for_selector("#gallery .card canvas[data-drawn]")
    assert shown(page) == len(small[1])


@needs_chromium
@pytest.mark.parametrize("width", [1440, 1100, 820, 480])
def test_nothing_is_cut_off_in_a_narrow_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    beyond = """() => [...document.querySelectorAll('header *, nav *, aside *, .middle > .bar *')]
      .filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1)
      .map((one) => one.outerHTML.slice(0, 80))"""
    until(page, lambda: page.evaluate(beyond) == [])
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@needs_chromium
def test_filters_and_orders_agree_with_the_tables(page, small):
    _, cells = small
    called = pd.read_parquet(small_files(small[0]).path("pooled_cells"))
    assert shown(page) == len(cells)
    page.check("input[name=location][value='14']")
    assert shown(page) == (called["labels"] == "14").sum()
    page.click("#reset")
    page.fill("#filter-field", "__PROTO__")
    assert shown(page) == (cells["field"] == "__proto__").sum()
    page.click("#reset")
    truth = pd.read_parquet(small_files(small[0]).path("scored_cells")).merge(called, on=["field", "cell"])
    page.select_option("#agreement", "differs")
    assert shown(page) == (truth["true_labels"] != truth["labels"]).sum()
    page.click("#reset")
    page.select_option("#truth", label="Vesicles and punctate cytosolic patterns")
    assert shown(page) == (truth["true_labels"] == "17").sum()
    page.click("#reset")
    best = called[[f"p_{index}" for index in range(19)]].max(axis=1)
    page.evaluate(
        """() => { const low = document.getElementById('confidence-low')
          low.value = 0.7; low.dispatchEvent(new Event('input', {bubbles: true})) }"""
    )
    until(page, lambda: shown(page) != len(cells))
    assert abs(shown(page) - (best >= 0.7).sum()) <= (abs(best - 0.7) < 0.004).sum()
    page.select_option("#sort", "surest")
    numbers = page.eval_on_selector_all(".card p b", "all => all.map(one => parseInt(one.textContent.match(/\\d+/)))")
    assert numbers == sorted(numbers, reverse=True)
    assert numbers


@needs_chromium
def test_colours_go_on_and_off_and_grow_brighter(page):
    first = ".card canvas[data-drawn]"
    page.uncheck("#outlines")
    for colour in ("red", "blue"):
        page.uncheck(f"#channel-{colour}")
    page.select_option("#palette", "hpa")
    until(page, lambda: brightest(page, first)[0] == brightest(page, first)[2] == 0)
    green = brightest(page, first)[1]
    assert green > 5
    page.evaluate(
        """() => { const gain = document.getElementById('gain-green')
          gain.value = 2; gain.dispatchEvent(new Event('input', {bubbles: true})) }"""
    )
    until(page, lambda: brightest(page, first)[1] > 1.2 * green)
    page.keyboard.press("2")
    until(page, lambda: brightest(page, first) == [0, 0, 0])


@needs_chromium
def test_the_keyboard_goes_through_cells_selects_and_exports(page, small):
    _, cells = small
    page.focus("#gallery")
    page.keyboard.press("Home")
    page.fill("#label", 'my, "class"')
    page.focus("#gallery")
    for key in (" ", "ArrowRight", "ArrowRight", " "):
        page.keyboard.press(key)
    assert page.inner_text("#picked-count").startswith("2 ")
    first = page.eval_on_selector_all(".card[aria-selected=true]", "all => all.map(one => +one.dataset.cell)")
    assert first == [0, 2]
    with page.expect_download() as download:
        page.click("#export")
    rows = read_rows(download.value.path())
    assert list(rows[0]) == ["field", "cell", "label"]
    known = set(zip(cells["field"], cells["cell"].astype(str), strict=True))
    assert len(rows) == 2
    assert all((row["field"], row["cell"]) in known and row["label"] == 'my, "class"' for row in rows)
    page.click("#clear")
    page.fill("#label", "")
    page.click("#pick-open")
    called = page.inner_text("#open-called")
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.path().read_text().endswith(f",{called}\n")
    page.focus("#gallery")
    page.keyboard.press("Enter")
    page.wait_for_selector("#field-canvas[data-drawn]")


@needs_chromium
def test_a_field_zooms_and_its_cells_answer_a_click(page):
    page.click("#show-field")
    page.wait_for_selector("#field-canvas[data-drawn]")
    before = page.inner_text("#open-cell h2")
    assert page.inner_text("#zoom") == "100 %"
    box = page.query_selector("#field-canvas").bounding_box()
    # The cell in the middle of the made-up field.
    page.focus("#field-canvas")
    page.keyboard.press("n")
    after = page.inner_text("#open-cell h2")
    assert after != before
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -600)
    until(page, lambda: int(page.inner_text("#zoom").split()[0]) > 150)
    page.keyboard.press("0")
    until(page, lambda: page.inner_text("#zoom") == "100 %")
    page.click("#zoom-in")
    assert page.inner_text("#zoom") == "150 %"
    page.keyboard.press("Escape")
    clicked = set()
    page.click("#zoom-out")
    for x in np.linspace(0.25, 0.75, 9):
        for y in np.linspace(0.1, 0.9, 7):
            page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
            clicked.add(page.inner_text("#open-cell h2"))
    assert len(clicked) == 4


@needs_chromium
def test_locations_that_round_to_one_probability_keep_their_order(engine, tmp_path):
    folder, _ = small_browser(tmp_path, ids=("a",), with_truth=False)
    files = small_files(folder)
    pooled = pd.read_parquet(files.path("pooled_cells"))
    pooled[["p_8", "p_14"]] = [0.8995, 0.9]
    pooled.to_parquet(files.path("pooled_cells"))
    write_page(folder, [files])
    with opened(engine, folder) as page:
        captions = page.eval_on_selector_all(".card p span", "all => all.map(one => one.textContent)")
        assert set(captions) == {"Mitochondria"}
        assert page.inner_text(".probabilities li:first-child span") == "Mitochondria"


@needs_chromium
def test_keys_go_from_field_to_field_and_stop_at_the_help(engine, tmp_path):
    folder, cells = small_browser(tmp_path, ids=("a", "b"))
    with opened(engine, folder) as page:
        page.click("#show-field")
        page.wait_for_selector("#field-canvas[data-drawn]")
        page.select_option("#field", str(1 - int(page.input_value("#field"))))
        field = page.eval_on_selector("#field", "one => one.selectedOptions[0].textContent")
        page.focus("#field-canvas")
        page.keyboard.press("p")
        last = page.inner_text("#open-cell h2")
        assert last.endswith(f" of {field}")
        page.keyboard.press("n")
        first = page.inner_text("#open-cell h2")
        page.keyboard.press("p")
        # The one before the first is the last, which is where one came in from the other field.
        assert page.inner_text("#open-cell h2") == last != first
        for _ in range((cells["field"] == field).sum()):
            page.keyboard.press("p")
        assert page.inner_text("#open-cell h2") == last
        page.keyboard.press("?")
        page.wait_for_selector("dialog")
        page.keyboard.press("g")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        assert page.get_attribute("#tab-field", "aria-selected") == "true"


@needs_chromium
def test_a_collection_without_a_cell_has_no_field_to_show(engine, tmp_path):
    folder, _ = small_browser(tmp_path, ids=("a",), most_fields=0)
    page = engine.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("text=0 of 0 cells")
    page.keyboard.press("f")
    page.wait_for_selector("#tab-field:disabled")
    page.wait_for_selector("text=No cell passes these filters.")
    page.close()
    assert problems == []


@needs_chromium
def test_the_open_cell_tells_its_probabilities_truth_and_neighbours(page, small):
    called = pd.read_parquet(small_files(small[0]).path("pooled_cells")).set_index(["field", "cell"])
    page.focus("#gallery")
    page.keyboard.press("End")
    number, field = re.fullmatch(r"Cell (\d+) of (.*)", page.inner_text("#open-cell h2")).groups()
    row = called.loc[(field, int(number))]
    assert page.inner_text(".probabilities li:first-child em") == f"{row[[f'p_{i}' for i in range(19)]].max():.2f}"
    assert (
        page.inner_text("#open-called")
        == {"0": "Nucleoplasm", "14": "Mitochondria", "16": "Cytosol", "18": "Negative"}[row["labels"]]
    )
    assert len(page.query_selector_all("#open-cell .near canvas")) == 8
    page.wait_for_selector("#open-cell .pictures canvas[data-drawn]")
    page.click("#open-cell .near button >> nth=0")
    assert page.inner_text("#open-cell h2") != f"Cell {number} of {field}"


@needs_chromium
def test_map_and_gallery_are_one_selection(page, small):
    _, cells = small
    box = page.query_selector("#map").bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in ((0.995, 0.01), (0.995, 0.99), (0.01, 0.99)):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    until(page, lambda: not page.inner_text("#picked-count").startswith("0"))
    assert page.inner_text("#picked-count") == f"{len(cells)} selected"
    page.click("#clear")
    page.check("input[name=location][value='0']")
    page.click("#pick-all")
    page.click("#reset")
    page.check("#only-picked")
    assert shown(page) == (pd.read_parquet(small_files(small[0]).path("pooled_cells"))["labels"] == "0").sum()


@needs_chromium
def test_a_lost_table_is_said_and_not_swallowed(engine, small, tmp_path):
    shutil.copytree(small[0], tmp_path / "browser")
    (tmp_path / "browser/small/table.js").unlink()
    page = engine.new_page()
    page.goto((tmp_path / "browser/index.html").as_uri())
    page.wait_for_selector("[role=alert]")
    assert "small/table.js cannot be read" in page.inner_text("[role=alert]")
    page.close()


@needs_chromium
def test_fifty_thousand_cells_are_filtered_while_one_looks(engine, tmp_path):
    folder = large_browser(tmp_path, 50_000)
    with opened(engine, folder) as page:
        assert shown(page) == 50_000
        # How long this machine takes to sort as many numbers, as the measure of what is quick.
        sort = page.evaluate(
            """() => { const times = []; for (let k = 0; k < 5; k++) {
                const numbers = Float64Array.from({length: 50000}, Math.random), start = performance.now()
                numbers.sort((x, y) => x - y); times.push(performance.now() - start) }
              return times.sort((x, y) => x - y)[2] }"""
        )
        for value in (0, 14, 16, 18):
            page.check(f"input[name=location][value='{value}']")
        page.fill("#filter-antibody", "hpa0001")
        page.select_option("#sort", "doubt")
        page.wait_for_selector("#gallery .card canvas[data-drawn]")
        times = page.evaluate("performance.getEntriesByType('measure').map(one => [one.name, one.duration])")
        # Medians, as the measure is one: a single step may have waited for another process.
        usual = {name: float(np.median([t for n, t in times if n == name])) for name in ("filter", "sort", "map")}
        assert usual["filter"] < 4 * sort, (usual, sort)
        assert usual["sort"] < 8 * sort, (usual, sort)
        assert usual["map"] < 40 * sort, (usual, sort)
        # Only what is in sight is in the page.
        assert len(page.query_selector_all(".card")) < 150
        page.focus("#gallery")
        page.click("#reset")
        page.focus("#gallery")
        page.keyboard.press("End")
        page.wait_for_selector("#cell-49999, .card.open canvas[data-drawn]")
        assert len(page.query_selector_all(".card")) < 150
