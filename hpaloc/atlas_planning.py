"""The sheets of the atlas at planning: its XML is found or fetched, and read if it, or what is asked of it, changed."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpaloc.addresses import is_address
from hpaloc.atlas.entries import AtlasError
from hpaloc.atlas.listing import AtlasSettings
from hpaloc.atlas.sheets import PARTS, atlas_lines, write_atlas_sheets
from hpaloc.config import ATLAS_FOLDER
from hpaloc.download import (
    Connections,
    DownloadError,
    FileKind,
    PassingError,
    RateLimiter,
    RetryPolicy,
    UnreachableError,
    check_url,
    fetch,
)
from hpaloc.files import write_json
from hpaloc.manifests import file_state
from hpaloc.progress import log, track
from hpaloc.version import room_version

# The first bytes of XML, also behind a byte-order mark, and of gzip.
_XML = FileKind("XML", (b"<?xm", b"<pro", b"<ent", b"\xef\xbb\xbf<", b"\x1f\x8b"))
_PER_SECOND = 1.0


def address_of_xml(settings: AtlasSettings) -> str:
    """Return where the XML is: the key ``xml``, or the address of the whole atlas of its version."""
    host = "www" if settings.version is None else f"v{settings.version}"
    return settings.xml or f"https://{host}.proteinatlas.org/download/proteinatlas.xml.gz"


def find_xml(settings: AtlasSettings, root: str, retries: RetryPolicy | None = None) -> list[Path]:
    """Return the files of the atlas's XML, those of addresses after they are fetched; one that is there is kept.

    root: stands for ``{root}`` in the key ``xml``
    Raises AtlasError naming the key if there is no such file or address, and DownloadError if it cannot be fetched,
    naming the key ``version`` if the address is made from it.
    """
    xml = address_of_xml(settings).replace("{root}", root)
    if "{gene}" in xml and not settings.genes:
        raise AtlasError("config key atlas.xml: has {gene}, but atlas.genes names none; list them (ENSG00000134057)")
    places = [xml.replace("{gene}", gene) for gene in settings.genes] if "{gene}" in xml else [xml]
    if is_address(xml):
        try:
            return _fetched(places, retries or RetryPolicy())
        except DownloadError as error:
            if settings.xml or settings.version is None or isinstance(error, UnreachableError):
                raise
            # Older releases have hosts of their own.
            raise type(error)(
                f"config key atlas.version: {error}; if {settings.version} is the present release, leave the key out, "
                "which fetches the present one"
            ) from None
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            files += sorted(path for path in place.iterdir() if re.search(r"\.xml(\.gz)?$", path.name.lower()))
            if not files:
                raise AtlasError(f"config key atlas.xml: the folder {place} has no file that ends with .xml or .xml.gz")
        elif place.is_file():
            files.append(place)
        else:
            raise AtlasError(f"config key atlas.xml: {place}: no such file or folder")
    return files


def _fetched(urls: Sequence[str], retries: RetryPolicy) -> list[Path]:
    """Fetch the addresses that were not fetched before; of several, one that does not exist is left out."""
    for url in urls[:1]:
        try:
            check_url(url)
        except DownloadError as error:
            raise AtlasError(f"config key atlas.xml: {error}") from None
    limiter = RateLimiter(Path("resources/downloaded/.pace"), _PER_SECOND)
    connections = Connections(retries.timeout)
    files = []
    for url in track(urls, len(urls), "files of the atlas fetched"):
        path = Path(ATLAS_FOLDER, "xml", re.sub(r"[^\w.-]", "_", url.partition("://")[2]))
        try:
            if not path.is_file():
                fetch(connections, url, path, limiter, retries, _XML)
            files.append(path)
        except PassingError:
            raise
        except DownloadError as error:
            if len(urls) == 1:
                raise
            log.warning("atlas.xml: %s", error)
    if not files:
        raise AtlasError(f"config key atlas.xml: none of its {len(urls)} addresses could be fetched, such as {urls[0]}")
    return files


def plan_atlas(config: Mapping[str, Any], tell: Callable[[str], object]) -> None:
    """Write the sheets of the atlas that collections use, unless they are already those of this XML and these settings.

    config: the completed configuration
    tell: called with each line for the person who waits
    Raises AtlasError naming the key or the file, and DownloadError if the XML cannot be fetched.
    """
    used = {name: collection["atlas"] for name, collection in config["collections"].items() if "atlas" in collection}
    if not used:
        return
    settings = AtlasSettings(**config["atlas"])
    if not settings.xml or is_address(settings.xml):
        tell(f"atlas: {address_of_xml(settings)} is fetched once, into {ATLAS_FOLDER}/xml")
    files = find_xml(settings, config["root"])
    summary_path, made_from = (Path(ATLAS_FOLDER, name) for name in ("summary.json", "made_from.json"))
    state = {
        "files": {str(path): file_state(str(path), path.stat(), False) for path in files},
        "settings": json.loads(json.dumps(asdict(settings))),
        "version": room_version("atlas.sheets"),
    }
    sheets = [Path(ATLAS_FOLDER, f"{part}.csv") for part in PARTS]
    whole = all(path.is_file() for path in (*sheets, summary_path, made_from))
    if whole and json.loads(made_from.read_text()) == state:
        summary = json.loads(summary_path.read_text())
    else:
        size = sum(path.stat().st_size for path in files) / 1e6
        tell(f"atlas: reading {len(files)} XML file{'s' * (len(files) > 1)} ({size:.1f} MB)")
        made_from.unlink(missing_ok=True)
        summary = write_atlas_sheets(files, settings, ATLAS_FOLDER)
        write_json(made_from, state)
        for line in atlas_lines(summary):
            tell(line)
        tell(f"atlas: the sheets and all counts are in {ATLAS_FOLDER}")
    for name, part in used.items():
        if not summary[part]["fields"]:
            cap = "atlas.per_class (1 is for one part alone), " if settings.per_class == 1 else ""
            raise AtlasError(
                f"config key collections.{name}.atlas: no field of the atlas is in the part {part}; change "
                f"{cap}atlas.test_fraction, or what atlas asks for"
            )
