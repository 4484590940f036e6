"""The pages as a site: it builds strictly, shows what GitHub shows, is searched, and fetches nothing from elsewhere."""

import functools
import html
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsed_cells import chromium
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
# Each page of the repository, and where it is in the site.
PAGES = {"README.md": "index.html", "config/README.md": "config/index.html", "CHANGELOG.md": "CHANGELOG.html"}
PAGES |= {f"docs/{page.name}": f"docs/{page.stem}.html" for page in sorted((ROOT / "docs").glob("*.md"))}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site's folder."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Tags(HTMLParser):
    """The tags of a page, as [(name, attributes)]."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, *_):
        """Write nothing."""


def fetched(page):
    """Return the addresses that a browser fetches for a page by itself, links of the text left out."""
    return [
        attributes[key]
        for name, attributes in Tags(page).tags
        for key in ("src", "srcset", "poster", "data", "href")
        if attributes.get(key) and not (key == "href" and name not in ("link", "use", "image"))
    ]


def longest_sentence(page):
    """Return the longest run of plain words within a line of a page."""
    text = re.sub(r"```.*?```|<[^>]*>", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return max(re.findall(r"(?<![\w/.-])[A-Za-z][A-Za-z ,]+(?= )", text), key=len)


def test_the_site_has_every_page_and_nothing_of_the_programs(site):
    assert {str(path.relative_to(site)) for path in site.rglob("*.html")} == {*PAGES.values(), "404.html"}
    assert not [*site.rglob("*.py"), *site.rglob("*.md"), *site.rglob("__pycache__")]


@pytest.mark.parametrize("page", PAGES)
def test_the_search_finds_what_a_page_says(site, page):
    entries = json.loads((site / "search/search_index.json").read_text())["docs"]
    indexed = [entry["text"] for entry in entries if entry["location"].partition("#")[0] == PAGES[page]]
    sentence = longest_sentence(page)
    assert len(sentence) > 30
    assert sentence in html.unescape(" ".join(indexed))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_in_the_site_what_it_shows_on_github(site, page):
    github = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).render((ROOT / page).read_text(encoding="utf-8"))
    )
    article = re.search(r"<article.*</article>", (site / PAGES[page]).read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    # Not paragraphs: how wide a list is spaced is its own matter.
    for tag in ["h1", "h2", "h3", "pre", "ol", "ul", "li", "table", "tr", "td", "code", "img", "blockquote", "strong"]:
        shown = [len(re.findall(rf"<{tag}[ >]", text)) for text in (github, article)]
        assert shown[0] == shown[1], tag


@pytest.mark.parametrize("page", PAGES.values())
def test_what_a_page_of_the_site_links_or_fetches_is_in_the_site(site, page):
    links = [attributes.get("href", "") for name, attributes in Tags(site / page).tags if name == "a"]
    within = [link for link in links if not urlsplit(link).scheme]
    for address in [*fetched(site / page), *within]:
        parts = urlsplit(address)
        assert not parts.scheme, address
        assert not parts.netloc, address
        assert (site / page).parent.joinpath(unquote(parts.path)).exists(), address


def test_the_styles_fetch_nothing_from_elsewhere(site):
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", styles)


@pytest.mark.browser
def test_in_a_real_browser_the_search_leads_to_a_page_and_no_other_host_is_asked(site):
    playwright = pytest.importorskip("playwright.sync_api")
    if chromium() is None:
        pytest.skip("there is no Chromium")
    handler = functools.partial(Quiet, directory=site)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        playwright.sync_playwright() as driver,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        for of_site in PAGES.values():
            page.goto(home + of_site)
        page.goto(home)
        page.click("[data-md-component=search-query]")
        page.keyboard.type("confusion matrix")
        page.click(".md-search-result__link")
        page.wait_for_url(re.compile(r"\.html"))
        browser.close()
        server.shutdown()
    assert len(asked) > len(PAGES)
    assert not [url for url in asked if not url.startswith((home, "data:", "blob:"))]
