"""The folder of a model that comes as a zip of ``pack_model``, from a file or from an https address."""

import errno
import json
import zipfile
import zlib
from pathlib import Path

from hpaloc.addresses import is_address
from hpaloc.download import Connections, DownloadError, FileKind, RateLimiter, RetryPolicy, fetch
from hpaloc.files import atomic_directory, digest, unpacks_within
from hpaloc.network.folder import check_folder
from hpaloc.network.options import ModelError
from hpaloc.packing import FOLDER, LISTING
from hpaloc.progress import log

# Where models are unpacked, each in a folder named by the start of its digest.
PLACE = Path("resources/models")
_DIGITS = 16
# A ResNet-50 has 100 MB, and a listing a few kilobytes.
_MOST_BYTES, _MOST_FILES, _MOST_LISTED = 2**32, 1000, 2**20
_READ = 2**20
_ZIP = FileKind("a zip file", (b"PK",), _MOST_BYTES)


def model_folder(path: str, sha256: str | None) -> str:
    """Return where the folder of a named model is, or will be once it is unpacked; nothing is read but a zip's bytes.

    path: of a folder or of a zip, or the address of a zip
    sha256: of the zip; None if it is not known
    """
    if not is_address(path) and not Path(path).is_file():
        return path
    return str(PLACE / (sha256 or digest(path))[:_DIGITS])


def provide_model(path: str, sha256: str | None, retries: RetryPolicy | None = None) -> None:
    """Fetch and unpack a named model, unless it is a folder or was unpacked before.

    path, sha256: as in ``model_folder``
    Raises ModelError with a sentence if the zip cannot be had, has another digest, or is not a packed model.
    """
    folder = Path(model_folder(path, sha256))
    if not (is_address(path) or Path(path).is_file()):
        if not folder.exists():
            raise ModelError(f"config key model.path: there is no {path}")
        if sha256 and folder.is_dir():
            raise ModelError(f"config key model.sha256: {path} is a folder, which has no digest; leave the key out")
        return
    if not is_address(path) and sha256:
        _check_digest(Path(path), path, sha256)
    if folder.is_dir():
        return
    with atomic_directory(folder) as unpacked:
        archive = Path(path)
        if is_address(path):
            archive = unpacked / "package.zip"
            log.info("fetching the model %s", path)
            _fetch(path, archive, retries or RetryPolicy())
            _check_digest(archive, path, str(sha256))
        try:
            unpack_model(archive, unpacked, path)
        except ModelError as error:
            raise ModelError(f"config key model.path: {error}") from None
        if is_address(path):
            archive.unlink()


def _fetch(address: str, archive: Path, retries: RetryPolicy) -> None:
    try:
        fetch(Connections(retries.timeout), address, archive, RateLimiter(PLACE / ".pace", 1.0), retries, _ZIP)
    except DownloadError as error:
        raise ModelError(f"config key model.path: {error}") from None


def _check_digest(archive: Path, name: str, sha256: str) -> None:
    found = digest(archive)
    if found != sha256:
        raise ModelError(
            f"config key model.sha256: {name} has the digest {found}, not {sha256}; it is another file, or was changed"
        )


def unpack_model(archive: Path, folder: Path, name: str) -> None:
    """Write the files of a packed model to a folder; no other file of the zip is written, and none is run.

    name: of the zip, for messages
    Raises ModelError if the zip is damaged, is not a packed model, or a file in it differs from its digest.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            sizes = {info.filename: info.file_size for info in packed.infolist()}
            if len(sizes) > _MOST_FILES or not unpacks_within(packed, _MOST_BYTES):
                raise ModelError(
                    f"{name}: unpacks to more files or bytes than a model has, or is not compressed by Deflate; make "
                    "it by pack_model"
                )
            if f"{FOLDER}/{LISTING}" not in sizes:
                raise ModelError(f"{name} is not a packed model: it has no {FOLDER}/{LISTING}; make it by pack_model")
            if sizes[f"{FOLDER}/{LISTING}"] > _MOST_LISTED:
                raise ModelError(f"{name}: {FOLDER}/{LISTING} is larger than a list of files")
            listed = _listed(packed.read(f"{FOLDER}/{LISTING}"), name)
            if "seen.npz" not in listed:
                raise ModelError(
                    f"{name}: {FOLDER}/{LISTING} does not list seen.npz, which says what trained the model"
                )
            for file in listed:
                if f"{FOLDER}/{file}" not in sizes:
                    raise ModelError(f"{name}: {FOLDER}/{file} is missing")
                with packed.open(f"{FOLDER}/{file}") as source, open(folder / file, "wb") as target:
                    while content := source.read(_READ):
                        target.write(content)
    except ModelError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        # A place before the start of the file is EINVAL; another number, such as that of a full disk, is not about the
        # zip.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        # A file with a password is a RuntimeError; a damaged name a ValueError.
        raise ModelError(f"{name}: is not a sound zip file ({error})") from None
    for file, expected in listed.items():
        if digest(folder / file) != expected:
            raise ModelError(f"{name}: {FOLDER}/{file} was changed after the model was packed ({LISTING})")
    try:
        check_folder(folder)
    except ModelError as error:
        raise ModelError(f"{name}: {str(error).replace(str(folder), FOLDER)}") from None


def _listed(content: bytes, name: str) -> dict[str, str]:
    """Return the digest of each file of a packed model."""
    try:
        files = json.loads(content)["files"]
    except (ValueError, TypeError, KeyError):
        files = None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise ModelError(f"{name}: {FOLDER}/{LISTING} does not list files and their digests")
    for file in files:
        if Path(file).name != file or file in ("", ".", "..") or "\0" in file or "\\" in file:
            raise ModelError(f"{name}: {FOLDER}/{LISTING} lists {file!r}, which is not a file of the folder")
    return files
