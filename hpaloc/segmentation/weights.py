"""Network weights: resumable downloads, never unpickled before their digest has been checked."""

import fcntl
import json
import logging
import os
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpaloc.files import digest, write_text
from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.settings import NetworkWeights

log = logging.getLogger("hpaloc")

# The authors' deposit of the networks of hpacellseg.
SOURCE = "https://zenodo.org/records/4665863/files/"
NETWORK_FILES = {
    "nuclei": "dpn_unet_nuclei_v1.pth",
    "cells": "dpn_unet_cell_3ch_v1.pth",
    "cells_without_yellow": "dpn_unet_cell_v2.pth",
}
_BLOCK = 1 << 20


class WeightsError(SetupError):
    """Weights that are missing, cannot be fetched, or are not the ones that were used before."""


def weights_folder() -> Path:
    """Return the folder of fetched weights: hpaloc/ in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpaloc"


def ready(weights: NetworkWeights, yellow: bool = True) -> tuple[Path, Path]:
    """Return the checked files of the nucleus and the cell network; those that the settings do not name are fetched.

    yellow: whether the fields have yellow; there is a cell network for either
    Raises WeightsError if a file is missing, cannot be fetched or is not the recorded one.
    """
    named = named_files(weights)
    files = []
    for network in ("nuclei", "cells" if yellow else "cells_without_yellow"):
        name = NETWORK_FILES[network]
        files.append(path := named.get(network, weights_folder() / name))
        if not path.is_file():
            fetch(SOURCE + name, path)
        check(path)
    return files[0], files[1]


def named_files(weights: NetworkWeights) -> dict[str, Path]:
    """Return the files that the section ``segmentation.weights`` names, by network.

    Raises WeightsError if one is missing, or is not the file that was recorded at its first use.
    """
    files = {}
    for network, name in asdict(weights).items():
        if not name:
            continue
        path = files[network] = Path(name)
        if not path.is_file():
            raise WeightsError(f"segmentation.weights.{network}: {path}: no such file")
        compare(path)
    return files


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
        raise WeightsError(f"{record}: is not a record of a digest ({error}); nothing was unpickled") from error
    if found != recorded:
        raise WeightsError(
            f"{path}: sha256 {found['sha256']} ({found['size']} bytes) is not the recorded {was}; "
            f"nothing was unpickled. If the change is meant, delete {record}"
        )
    return found, True
