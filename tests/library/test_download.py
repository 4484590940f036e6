"""Downloading from a server on this machine that fails in the usual ways."""

import base64
import gzip
import hashlib
import itertools
import re
import time
from contextlib import chdir
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from failing_server import failing_server
from workflow_runs import planned, read_rows, snakemake, write_config, write_field, write_sheet

from hpaloc import download
from hpaloc.atlas.listing import AtlasSettings
from hpaloc.atlas_planning import find_xml
from hpaloc.classes import COLOURS
from hpaloc.delimited import SheetError
from hpaloc.download import (
    IMAGE,
    Connections,
    DownloadError,
    PassingError,
    RateLimiter,
    RetryPolicy,
    UnreachableError,
    check_url,
    download_shard,
    fetch,
)
from hpaloc.image_files.decoding import ImageError, read_image
from hpaloc.manifests import ManifestRow, SheetRow
from hpaloc.network.options import ModelError
from hpaloc.scan import download_urls
from hpaloc.unpacking import provide_model

QUICK = RetryPolicy(tries=3, first_wait=0.01, timeout=0.5)


@pytest.fixture
def png():
    image = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture
def server(png):
    with failing_server({"/a.png": png, "/b.png": png[::1], "/c.png": png, "/d.png": png}) as server:
        yield server


@pytest.fixture
def limiter(tmp_path):
    return RateLimiter(tmp_path / ".pace", 1000)


@pytest.fixture
def get(server, limiter, tmp_path):
    def get(path="/a.png", retries=QUICK):
        out = tmp_path / "out" / path[1:]
        fetch(Connections(retries.timeout), server.url + path, out, limiter, retries)
        return out.read_bytes()

    return get


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "tricks",
    [
        [500],
        [503, 502],
        [501, 520],
        [429],
        [408],
        ["hang up"],
        ["cut short"],
        ["cut short", "cut short"],
        ["silence"],
        ["chunked"],
        [500, "cut short"],
    ],
    ids=str,
)
def test_what_passes_is_tried_again_until_the_file_is_whole(get, server, png, tmp_path, tricks):
    server.tricks["/a.png"] = list(tricks)
    assert get() == png
    assert left(tmp_path) == ["a.png"]


@pytest.mark.parametrize("trick", [500, 429, "hang up", "cut short", "silence"])
def test_what_does_not_pass_is_given_up_without_a_half_file(get, server, tmp_path, trick):
    # A server that never gives the same file twice cannot be gone on with.
    server.etag = None
    server.tricks["/a.png"] = [trick] * 3
    with pytest.raises(PassingError, match=r"a\.png: .*tried 3 times"):
        get()
    assert "a.png" not in left(tmp_path)
    assert len(server.requests) == 3


@pytest.mark.parametrize("trick", [404, 403, 410, 416])
def test_a_plain_no_is_asked_once(get, server, tmp_path, trick):
    server.tricks["/a.png"] = [trick]
    with pytest.raises(DownloadError, match=f"the server answered {trick}"):
        get()
    assert len(server.requests) == 1


def test_a_page_instead_of_an_image_is_refused(get, server, tmp_path):
    server.tricks["/a.png"] = ["page"]
    with pytest.raises(DownloadError, match="is not an image"):
        get()
    assert "a.png" not in left(tmp_path)


def test_a_file_cut_short_is_gone_on_with(get, server, png):
    server.tricks["/a.png"] = ["cut short"]
    assert get() == png
    second = server.requests[1][1]
    start = int(second["Range"].removeprefix("bytes=").rstrip("-"))
    assert len(png) // 2 - 10_000 < start <= len(png) // 2
    assert second["If-Range"] == server.etag


def test_a_file_that_changed_meanwhile_starts_anew(get, server, png):
    server.tricks["/a.png"] = ["cut short"] * 3
    with pytest.raises(PassingError):
        get()
    server.etag = '"two"'
    server.files["/a.png"] = png[:100] + png[:-100:-1] + png[100:]
    assert get() == server.files["/a.png"]


def test_a_part_of_another_file_is_not_joined_to_the_first(get, server, png):
    """A server that knows Range, but not If-Range, sends the end of a file that changed meanwhile."""
    server.tricks["/a.png"] = ["cut short"] * 3
    with pytest.raises(PassingError):
        get()
    server.believed, server.etag = (server.etag,), '"two"'
    server.files["/a.png"] = png[:8] + png[:7:-1]
    assert get() == server.files["/a.png"]


def test_more_bytes_than_a_file_may_have_are_not_kept(server, limiter, tmp_path):
    kind = replace(IMAGE, most=1000)
    with pytest.raises(DownloadError, match=r"a\.png: is larger than an image may be, 1000 bytes"):
        fetch(Connections(QUICK.timeout), server.url + "/a.png", tmp_path / "a.png", limiter, QUICK, kind)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".part")]


@pytest.mark.parametrize("marks", ["", '{"url": ', "[]", "\udcff"], ids=["empty", "half", "a list", "no text"])
def test_a_broken_note_of_a_part_starts_it_anew(get, server, png, tmp_path, marks):
    server.tricks["/a.png"] = ["cut short"] * 3
    with pytest.raises(PassingError):
        get()
    (tmp_path / "out/.a.png.part.json").write_bytes(marks.encode(errors="surrogateescape"))
    assert get() == png
    assert "Range" not in server.requests[-1][1]


def test_what_the_server_packs_is_not_gone_on_with_but_fetched_anew(get, server, png):
    packed = gzip.compress(png)
    server.files["/a.png"], server.headers = packed, {"Content-Encoding": "gzip"}
    server.tricks["/a.png"] = ["cut short"]
    assert get() == png
    assert [request[1].get("Range") for request in server.requests] == [None, None]


def test_a_server_without_ranges_sends_the_whole_again(get, server, png):
    server.ranges = False
    server.tricks["/a.png"] = ["cut short"]
    assert get() == png


def test_the_server_says_how_long_to_wait(get, server, monkeypatch):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    server.retry_after = "7"
    server.tricks["/a.png"] = [429]
    get()
    assert 7 in waited


def test_waits_double(get, server, monkeypatch):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    server.tricks["/a.png"] = [500, 500, 500]
    get(retries=RetryPolicy(tries=4, first_wait=8, timeout=1))
    assert [wait for wait in waited if wait >= 8] == [8, 16, 32]


def test_redirects_are_followed_but_not_away_from_https_nor_for_ever(get, server, png):
    server.tricks["/a.png"] = ["redirect /b.png"]
    assert get() == png
    server.tricks["/a.png"] = ["redirect http://example.org/b.png"]
    with pytest.raises(DownloadError, match=r"http://example\.org/b\.png: only https"):
        get()
    server.tricks["/a.png"] = ["redirect http://[bad"]
    with pytest.raises(DownloadError, match=r"/a\.png: redirects to 'http://\[bad', which is not an address"):
        get()
    server.tricks["/c.png"] = ["redirect /c.png"] * 9
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        get("/c.png")


@pytest.fixture
def proxy(png, monkeypatch):
    """A proxy that the environment names, with a name and a password; it has files of a server that does not exist."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with failing_server({f"http://localhost:1/{id}.png": png for id in "ab"}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:a%20word@"))
        yield proxy


def test_the_proxy_that_the_environment_names_is_asked(proxy, png, limiter, tmp_path):
    fetch(Connections(QUICK.timeout), "http://localhost:1/a.png", tmp_path / "a.png", limiter, QUICK)
    assert (tmp_path / "a.png").read_bytes() == png
    ((path, headers),) = proxy.requests
    assert path == "http://localhost:1/a.png"
    assert headers["proxy-authorization"] == f"Basic {base64.b64encode(b'me:a word').decode()}"


def test_a_proxy_may_lack_its_scheme(proxy, limiter, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    fetch(Connections(QUICK.timeout), "http://localhost:1/a.png", tmp_path / "a.png", limiter, QUICK)
    assert len(proxy.requests) == 1


def test_a_proxy_for_all_is_asked(proxy, limiter, tmp_path, monkeypatch):
    monkeypatch.setenv("all_proxy", proxy.url)
    monkeypatch.delenv("http_proxy")
    fetch(Connections(QUICK.timeout), "http://localhost:1/a.png", tmp_path / "a.png", limiter, QUICK)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("proxy", ["http://me:pa#ss@127.0.0.1:1", "http://me:word@127.0.0.1:99999", "127.0.0.1:1 x"])
def test_a_proxy_that_is_no_address_is_told_without_its_password(server, limiter, tmp_path, monkeypatch, proxy):
    for other in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    sentence = "^the proxy that HTTPS_PROXY or ALL_PROXY names is not an address .*for #.$"
    with pytest.raises(UnreachableError, match=sentence):
        fetch(Connections(QUICK.timeout), server.url + "/a.png", tmp_path / "a.png", limiter, QUICK)


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_a_proxy_of_another_kind_is_told_at_once_and_rejects_no_field(server, limiter, tmp_path, monkeypatch, name):
    for other in ("no_proxy", "NO_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "socks5h://me:word@proxy.example:1080")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("tried again"))
    sentence = r"^the proxy socks5h://proxy\.example:1080 is not an HTTP proxy; name one in HTTPS_PROXY, or in NO_PROXY"
    with pytest.raises(UnreachableError, match=sentence):
        download_shard(manifest(server, tmp_path, "a"), tmp_path / "log.csv", limiter, QUICK)


def test_images_atlas_and_models_come_through_the_proxy(proxy, limiter, tmp_path):
    site = SimpleNamespace(url="http://localhost:1")
    with chdir(tmp_path):
        download_shard(manifest(site, tmp_path, "a"), tmp_path / "log.csv", limiter, QUICK)
        with pytest.raises(DownloadError, match=r"c\.xml: the server answered 404"):
            find_xml(AtlasSettings(xml=f"{site.url}/c.xml"), ".", QUICK)
        with pytest.raises(ModelError, match=r"d\.zip: the server answered 404"):
            provide_model(f"{site.url}/d.zip", "0" * 64, QUICK)
    names = ["a.png"] * len(COLOURS) + ["c.xml", "d.zip"]
    assert [path for path, _ in proxy.requests] == [f"{site.url}/{name}" for name in names]


def test_what_needs_no_proxy_goes_direct_and_its_redirect_through_the_proxy(proxy, get, server, png, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get() == png
    assert not proxy.requests
    server.tricks["/b.png"] = ["redirect http://localhost:1/b.png"]
    assert get("/b.png") == png
    assert [path for path, _ in proxy.requests] == ["http://localhost:1/b.png"]


@pytest.mark.parametrize(
    "url", ["http://example.org/a.png", "ftp://example.org/a", "file:///etc/passwd", "https:///a", "a"]
)
def test_only_https_is_fetched(url):
    with pytest.raises(DownloadError):
        check_url(url)


def test_requests_of_all_processes_are_kept_apart(tmp_path, monkeypatch):
    now = itertools.count(1000, 0.1)
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    for limiter in (
        RateLimiter(tmp_path / "pace", 1, lambda: next(now)),
        RateLimiter(tmp_path / "pace", 1, lambda: next(now)),
    ):
        limiter.wait()
    assert len(waited) == 1
    assert 0.5 < waited[0] <= 1


def manifest(server, tmp_path, ids="ab"):
    return [
        ManifestRow(
            id=id,
            labels=None,
            pixel_size=0.08,
            paths={colour: str(tmp_path / "files" / f"{id}_{colour}.png") for colour in COLOURS},
            urls={colour: f"{server.url}/{id}.png" for colour in COLOURS},
        )
        for id in ids
    ]


def test_an_id_that_makes_no_file_name_is_a_row_with_a_reason(server, png, limiter, tmp_path):
    rows = manifest(server, tmp_path)
    long = "é" * 120
    rows[0] = replace(rows[0], id=long, paths={c: str(tmp_path / "files" / f"{long}_{c}_of_many.png") for c in COLOURS})
    # The second time too, when the log knows of it.
    for _ in range(2):
        asked = len(server.requests)
        download_shard(rows, tmp_path / "log.csv", limiter, QUICK, max_failed_fraction=0.5)
        reasons = [row["reason"] for row in read_rows(tmp_path / "log.csv")]
        assert [bool(reason) for reason in reasons] == [True] * 4 + [False] * 4
        assert "_red_of_many.png: the file system does not accept this file name (File name too long)" in " ".join(
            reasons
        )
        # What cannot be kept is not asked for.
        assert "/a.png" not in [path for path, _ in server.requests[asked:]]
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"downloads.csv", *(f"b_{c}.png" for c in COLOURS)}


def test_a_shard_is_fetched_once_and_its_digests_noted(server, png, limiter, tmp_path):
    rows = manifest(server, tmp_path)
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK)
    entries = read_rows(tmp_path / "log.csv")
    assert len(entries) == 8
    assert {entry["sha256"] for entry in entries} == {hashlib.sha256(png).hexdigest()}
    asked = len(server.requests)
    first = (tmp_path / "log.csv").read_bytes()
    (tmp_path / "log.csv").unlink()
    # A file that was changed by hand is fetched again, the others are not asked for.
    (tmp_path / "files/a_red.png").write_bytes(b"broken")
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK)
    assert len(server.requests) == asked + 1
    assert (tmp_path / "log.csv").read_bytes() == first


def test_a_job_that_failed_keeps_what_it_had(server, limiter, tmp_path):
    rows = manifest(server, tmp_path, "abc")
    server.tricks["/c.png"] = [500] * 3
    with pytest.raises(PassingError):
        download_shard(rows, tmp_path / "log.csv", limiter, QUICK)
    assert not (tmp_path / "log.csv").exists()
    asked = len(server.requests)
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK)
    assert len(server.requests) == asked + 4


def test_a_field_that_cannot_be_had_is_listed_and_too_many_fail(server, limiter, tmp_path):
    del server.files["/b.png"]
    rows = manifest(server, tmp_path)
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK, max_failed_fraction=0.5)
    reasons = {entry["id"]: entry["reason"] for entry in read_rows(tmp_path / "log.csv")}
    assert reasons["a"] == ""
    assert "404" in reasons["b"]
    del server.files["/c.png"]
    with pytest.raises(DownloadError, match="2 of 3 fields cannot be downloaded"):
        download_shard(manifest(server, tmp_path, "abc"), tmp_path / "log.csv", limiter, QUICK, 0.1)


def of_colours(server, tmp_path, png, ids):
    """Return the manifest of fields whose colours have an address each, and let the server have them."""
    rows = manifest(server, tmp_path, ids)
    rows = [replace(row, urls={colour: f"{server.url}/{row.id}_{colour}.png" for colour in COLOURS}) for row in rows]
    server.files |= {f"/{row.id}_{colour}.png": png for row in rows for colour in COLOURS}
    return rows


def test_the_other_colours_of_a_field_that_cannot_be_had_are_not_requested(server, png, limiter, tmp_path):
    rows = of_colours(server, tmp_path, png, "ab")
    del server.files["/a_green.png"]
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK, max_failed_fraction=0.5)
    expected = ["/a_red.png", "/a_green.png", *(f"/b_{colour}.png" for colour in COLOURS)]
    assert [path for path, _ in server.requests] == expected
    entries = read_rows(tmp_path / "log.csv")
    reasons = [entry["reason"] for entry in entries]
    lost = f"{server.url}/a_green.png: the server answered 404"
    skipped = f"not requested, because of another colour: {lost}"
    assert reasons == ["", lost, skipped, skipped, *[""] * 4]
    # Stages that read the files give the same reasons.
    for colour, reason in zip(COLOURS[1:], reasons[1:4], strict=True):
        with pytest.raises(ImageError, match=f"^{re.escape(reason)}$"):
            read_image(rows[0].paths[colour])
    # What is there is kept, and the rest is had once the server has it.
    server.files["/a_green.png"] = png
    server.requests.clear()
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK)
    assert [path for path, _ in server.requests] == ["/a_green.png", "/a_blue.png", "/a_yellow.png"]
    assert not any(entry["reason"] for entry in read_rows(tmp_path / "log.csv"))


def test_a_shard_of_which_too_much_cannot_be_had_requests_no_more(server, png, limiter, tmp_path):
    rows = of_colours(server, tmp_path, png, "abcd")
    lost = {name: server.files.pop(name) for name in ("/b_red.png", "/c_red.png")}
    with pytest.raises(DownloadError) as error:
        download_shard(rows, tmp_path / "log.csv", limiter, QUICK, max_failed_fraction=0.25)
    assert str(error.value).splitlines() == [
        "2 of 4 fields cannot be downloaded, max_rejected_fraction is 0.25; no more are requested:",
        f"  b: {server.url}/b_red.png: the server answered 404",
        f"  c: {server.url}/c_red.png: the server answered 404",
    ]
    first = [f"/a_{colour}.png" for colour in COLOURS]
    assert [path for path, _ in server.requests] == [*first, "/b_red.png", "/c_red.png"]
    assert not (tmp_path / "log.csv").exists()
    server.files |= lost
    server.requests.clear()
    download_shard(rows, tmp_path / "log.csv", limiter, QUICK)
    assert [path for path, _ in server.requests] == [f"/{id}_{colour}.png" for id in "bcd" for colour in COLOURS]


def test_addresses_come_from_the_sheet(tmp_path):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("ID,antibody,image,url_red\nx,HPA000089,89_B5_1,\ny,CAB12,../a b,https://example.org/y.png\n")
    rows = [SheetRow(id, None, 0.08) for id in "xy"]
    x, y = download_urls(sheet, rows, "https://images.example.org/{antibody_number}/{image}_{colour}.jpg")
    assert x["yellow"] == "https://images.example.org/89/89_B5_1_yellow.jpg"
    assert y["red"] == "https://example.org/y.png"
    assert y["blue"] == "https://images.example.org/12/..%2Fa%20b_blue.jpg"
    for pattern, message in (
        ("https://example.org/{plate}_{colour}", "but the sheet has no such column"),
        ("http://example.org/{id}_{colour}", "is not an https address"),
    ):
        with pytest.raises(SheetError, match=message):
            download_urls(sheet, rows, pattern)
    sheet.write_text("ID,antibody,image\nx,,89_B5_1\n")
    with pytest.raises(SheetError, match="antibody_number is empty"):
        download_urls(sheet, rows[:1], "https://example.org/{antibody_number}/{image}_{colour}.jpg")


SITE = "https://example.org/"


def refusal(folder, pattern):
    """Return a sheet of two fields, and the sentence with which a pattern of addresses is refused for it."""
    sheet = folder / "sheet.csv"
    sheet.write_text("ID,antibody\nx,HPA1\ny,CAB01\n")
    with pytest.raises(SheetError) as error:
        download_urls(sheet, [SheetRow(id, None, 0.08) for id in "xy"], SITE + pattern)
    return sheet, str(error.value)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("{id}_{antibody.foo}_{colour}", "has more than a name between the braces of {antibody.foo}"),
        ("{id}_{antibody[foo]}_{colour}", "has more than a name between the braces of {antibody[foo]}"),
        ("{id}_{antibody[0]}_{colour}", "has more than a name between the braces of {antibody[0]}"),
        ("{id}_{antibody:>99999}_{colour}", "has more than a name between the braces of {antibody}"),
        ("{id!r}_{colour}", "has more than a name between the braces of {id}"),
        ("{id:{colour}}", "has more than a name between the braces of {id}"),
        ("{id}_{}_{colour}", "has {}, which does not name a column"),
        ("{id}_{0}_{colour}", "has {0}, which does not name a column"),
        ("{id}_{colour", "is not a pattern (expected '}' before end of string)"),
    ],
)
def test_a_wrong_pattern_of_addresses_is_told_in_a_sentence(tmp_path, pattern, sentence):
    _, refused = refusal(tmp_path, pattern)
    assert refused == f"download.url: {SITE + pattern!r} {sentence}"


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("{id}.png", "(ID x): green has the same address as red, 'https://example.org/x.png'; give each its own"),
        ("{id}.png#{colour}", "(ID x): green has the same address as red, 'https://example.org/x.png#green'"),
        ("{colour}.png", "(ID y): red has the same address as red of ID x, 'https://example.org/red.png'"),
        ("{antibody_number}/{colour}.png", "(ID y): red has the same address as red of ID x, "),
    ],
)
def test_channels_and_fields_of_one_address_are_refused(tmp_path, pattern, sentence):
    sheet, refused = refusal(tmp_path, pattern)
    assert refused.startswith(f"sheet {sheet} {sentence}")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:80@evil.example/x",
        "http://127.0.0.1:@evil.example/x",
        "https://user:word@example.org/x",
        "https:///x",
        "https://[x/y",
        "https://example.org:port/x",
        "https://exam ple.org/x",
        "http://localhost.evil.example/x",
        "ftp://example.org/x",
        "example.org/x",
    ],
)
def test_what_is_not_an_https_address_is_refused(tmp_path, url):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"ID,url_green\nx,{url}\n")
    with pytest.raises(SheetError) as error:
        download_urls(sheet, [SheetRow("x", None, 0.08)], SITE + "{id}_{colour}")
    assert str(error.value) == f"sheet {sheet} (ID x): {url!r} is not an https address"


def test_an_antibody_of_unknown_or_many_digits_has_no_traceback(tmp_path):
    sheet = tmp_path / "sheet.csv"
    rows = [SheetRow("x", None, 0.08)]
    sheet.write_text(f"ID,antibody\nx,HPA{'1' * 5000}\n")
    assert download_urls(sheet, rows, SITE + "{antibody_number}_{colour}")[0]["red"] == f"{SITE}{'1' * 5000}_red"
    sheet.write_text("ID,antibody\nx,N/A\n")
    with pytest.raises(SheetError, match="antibody is empty"):
        download_urls(sheet, rows, SITE + "{antibody}_{colour}")


@pytest.mark.workflow
def test_the_workflow_fetches_a_collection_and_has_then_nothing_to_do(tmp_path):
    (tmp_path / "site").mkdir()
    for seed, image in enumerate(("one", "two")):
        write_field(tmp_path / "site", image, (0,), seed, (256, 256))
    files = {f"/7/{path.name}": path.read_bytes() for path in (tmp_path / "site").iterdir()}
    with failing_server(files) as server:
        server.tricks["/7/one_red.png"] = ["cut short", 500]
        write_sheet(tmp_path / "hpa.csv", [{"ID": "x", "antibody": "HPA000007", "image": "one"}])
        url = server.url + "/{antibody_number}/{image}_{colour}.png"
        write_config(
            tmp_path / "config.yaml",
            collections={"hpa": {"sheet": "hpa.csv", "download": {"url": url, "per_second": 20}}},
            shards=1,
            pixel_size=0.16,
        )
        # Any rule that reads the images waits for them.
        snakemake(tmp_path, "results/cells/hpa/000.parquet")
        assert (tmp_path / "resources/downloaded/hpa/000/x_green.png").read_bytes() == files["/7/one_green.png"]
        assert not planned(tmp_path, "results/cells/hpa/000.parquet")[0]
        asked = len(server.requests)
        write_sheet(
            tmp_path / "hpa.csv",
            [
                {"ID": id, "antibody": "HPA000007", "image": image}
                for id, image in zip("xy", ("one", "two"), strict=True)
            ],
        )
        snakemake(tmp_path, "resources/downloaded/hpa/000.csv")
        assert len(server.requests) == asked + 4
