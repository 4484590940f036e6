"""Network weights: resumable downloads, never loaded before their digest has been checked."""

import fcntl
import json
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from hpaloc.files import digest, write_text
from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.settings import NetworkWeights

log = logging.getLogger("hpaloc")


class Published(NamedTuple):
    """A file of weights that its authors have published; ``sha256`` is None if they do not give it."""

    url: str
    sha256: str | None = None


_PICKLES = "https://zenodo.org/records/4665863/files/"
# The authors' deposits of the networks of hpacellseg, by segmentation.weights.format: pickles of whole networks, and
# TorchScript in the collection BioImage.IO (conscientious-seashell, loyal-parrot; CC-BY-4.0), whose descriptions have
# the digests.
PUBLISHED = {
    "pickle": {
        "nuclei": Published(f"{_PICKLES}dpn_unet_nuclei_v1.pth"),
        "cells": Published(f"{_PICKLES}dpn_unet_cell_3ch_v1.pth"),
        "cells_without_yellow": Published(f"{_PICKLES}dpn_unet_cell_v2.pth"),
    },
    "torchscript": {
        "nuclei": Published(
            "https://zenodo.org/records/7690494/files/nuclei_model.pt",
            "8d3af116378b12d54a15d880b942c2d7e74ba52e11421a7ba16c702d1a112ba5",
        ),
        "cells": Published(
            "https://zenodo.org/records/7702687/files/cell_model.pt",
            "7e94848c41f2a8a2e881a194fbd0228af15d3df864313c53bf3b130e90ca0275",
        ),
    },
}
# The networks that a backend may use: keys of the section ``segmentation.weights``.
NETWORKS = {"hpacellseg": ("nuclei", "cells", "cells_without_yellow"), "instanseg": ("instanseg",)}
ALL_NETWORKS = tuple(network for networks in NETWORKS.values() for network in networks)
_BLOCK = 1 << 20


class WeightsError(SetupError):
    """Weights that are missing, cannot be fetched, or are not the ones that were used before."""


def weights_folder() -> Path:
    """Return the folder of fetched weights: hpaloc/ in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpaloc"


def used_networks(backend: str, yellow: bool = True) -> tuple[str, ...]:
    """Return the networks that a backend uses for fields with or without yellow: keys of ``segmentation.weights``."""
    if backend == "hpacellseg":
        return "nuclei", "cells" if yellow else "cells_without_yellow"
    return NETWORKS.get(backend, ())


def ready(weights: NetworkWeights, yellow: bool = True, backend: str = "hpacellseg") -> list[Path]:
    """Return the checked files of the networks of a backend; those that the settings do not name are fetched.

    yellow: whether the fields have yellow
    Raises WeightsError if a file is missing, cannot be fetched, or is not the published or recorded one.
    """
    return [_ready(weights, network) for network in used_networks(backend, yellow)]


def find(weights: NetworkWeights, network: str) -> Path | Published:
    """Return the file of a network that the settings name, or the published one.

    network: a key of the section ``segmentation.weights``
    Raises WeightsError if there is neither, and as ``named_file`` does.
    """
    if path := named_file(weights, network):
        return path
    if network not in PUBLISHED[weights.format]:
        others = [format for format, networks in PUBLISHED.items() if network in networks]
        hint = f", or write segmentation.weights.format: {others[0]}" if others else "; docs/backends.md says which"
        raise WeightsError(
            f"segmentation.weights.{network}: no published network of the format {weights.format} is known; name a "
            f"file{hint}"
        )
    return PUBLISHED[weights.format][network]


def _ready(weights: NetworkWeights, network: str) -> Path:
    found = find(weights, network)
    if isinstance(found, Path):
        check(found)
        return found
    path = weights_folder() / found.url.rpartition("/")[2]
    if not path.is_file():
        fetch(found.url, path)
    if found.sha256 is None:
        check(path)
    elif (own := digest(path)) != found.sha256:
        raise WeightsError(
            f"{path}: sha256 {own} is not that of the published file, {found.sha256}; nothing was loaded. Delete it, "
            "and the next run fetches it again"
        )
    else:
        log.info("%s: sha256 %s is the published one", path, own)
    return path


def named_file(weights: NetworkWeights, network: str) -> Path | None:
    """Return the file that the section ``segmentation.weights`` names for a network, or None.

    Raises WeightsError if it is missing.
    """
    name = getattr(weights, network)
    if not name:
        return None
    path = Path(name)
    if not path.is_file():
        raise WeightsError(f"segmentation.weights.{network}: {path}: no such file")
    return path


def fetch(url: str, path: Path) -> None:
    """Download a file, continuing where an interrupted download stopped.

    If several jobs need a file at once, the first fetches it and the others wait.

    Raises WeightsError if the server cannot be reached or sends less than it announced; the next try continues.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.is_file():
            return
        have = os.fstat(file.fileno()).st_size
        log.info("fetching %s%s", url, f" from byte {have}" if have else "")
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                if have and response.status != 206:
                    # The server sends the whole file again.
                    file.truncate(0)
                    have = 0
                length = response.headers.get("Content-Length")
                expected = have + int(length) if length else None
                while block := response.read(_BLOCK):
                    file.write(block)
        except urllib.error.HTTPError as error:
            # 416: the part is complete.
            if error.code != 416:
                raise WeightsError(f"{url}: {error}; name a local file in segmentation.weights instead") from error
            expected = have
        except OSError as error:
            raise WeightsError(f"{url}: {error}; name a local file in segmentation.weights instead") from error
        file.flush()
        size = os.fstat(file.fileno()).st_size
        if expected is not None and size < expected:
            raise WeightsError(f"{url}: {size} of {expected} bytes arrived; run again to fetch the rest")
        os.replace(part, path)


def check(path: Path) -> str:
    """Compare a weights file with the size and digest recorded at its first use; at the first use, record them.

    Returns the SHA-256 digest.
    Raises WeightsError if the file is not the recorded one, or cannot be recorded.
    """
    found, recorded = compare(path)
    if recorded:
        log.info("%s: sha256 %s is the recorded one", path, found["sha256"])
    else:
        record = _record(path)
        try:
            write_text(record, json.dumps(found) + "\n")
        except OSError as error:
            raise WeightsError(f"{path}: its digest cannot be recorded next to it: {error}") from error
        log.info("%s: first use, recorded sha256 %s (%d bytes)", path, found["sha256"], found["size"])
    return str(found["sha256"])


def _record(path: Path) -> Path:
    """Return the record of the size and digest of a weights file at its first use, next to it: <name>.sha256.json."""
    return path.with_name(path.name + ".sha256.json")


def compare(path: Path) -> tuple[dict[str, Any], bool]:
    """Return size and SHA-256 digest of a weights file, and whether they are recorded.

    Raises WeightsError if others are recorded.
    """
    record = _record(path)
    found: dict[str, Any] = {"size": path.stat().st_size, "sha256": digest(path)}
    if not record.is_file():
        return found, False
    try:
        recorded = json.loads(record.read_text())
        was = f"{recorded['sha256']} ({recorded['size']} bytes)"
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise WeightsError(f"{record}: is not a record of a digest ({error}); nothing was loaded") from error
    if found != recorded:
        raise WeightsError(
            f"{path}: sha256 {found['sha256']} ({found['size']} bytes) is not the recorded {was}; "
            f"nothing was loaded. If the change is meant, delete {record}"
        )
    return found, True
