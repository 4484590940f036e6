"""Download of public fields: politely, resumable, and checked, with a log of digests."""

import csv
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin
from urllib.request import getproxies, proxy_bypass

import urllib3

from hpaloc.addresses import split_url
from hpaloc.files import FileNameError, atomic_path, digest, names_checked
from hpaloc.image_files.not_made import write_reason
from hpaloc.manifests import ManifestRow
from hpaloc.progress import log, track
from hpaloc.rejection import too_many

LOG_COLUMNS = ("id", "colour", "url", "bytes", "sha256", "reason")

_REDIRECTS = 5
# A broken connection loses less than this.
_CHUNK = 1 << 13
_LONGEST_WAIT = 600.0
# Answers that may pass by themselves: too early, too many requests, and errors of the server.
_PASSING = {408, 425, 429, *range(500, 600)}


@dataclass(frozen=True)
class FileKind:
    """What a file is, how such files start (unlike an error page with status 200), and their largest size in bytes."""

    name: str
    starts: tuple[bytes, ...]
    most: int | None = None


# PNG, JPEG, TIFF (and gzip'd TIFF).
IMAGE = FileKind("an image", (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x1f\x8b"))


class DownloadError(RuntimeError):
    """A file that cannot be downloaded; the message names its URL and the reason."""


class PassingError(DownloadError):
    """A failure that may pass, such as a timeout; ``wait`` is how many seconds the server asked for, or None."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class UnreachableError(PassingError):
    """A failure that affects every file of a server and needs a person, such as a certificate that is not trusted."""


@dataclass(frozen=True)
class RetryPolicy:
    """How to retry: tries per file, seconds of the first wait, and seconds of silence until an attempt is given up."""

    tries: int = 6
    first_wait: float = 1.0
    timeout: float = 60.0


class RateLimiter:
    """Keeps requests apart in time, over all processes that share the file ``path``."""

    def __init__(self, path: Path, per_second: float, clock: Callable[[], float] = time.time) -> None:
        self._path, self._apart, self._clock = path, 1 / per_second, clock
        path.parent.mkdir(parents=True, exist_ok=True)

    def wait(self) -> None:
        """Return when the next request may start."""
        with open(self._path, "a+") as file:
            # The lock is held while waiting, so that processes wait one after the other.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            # A time in the future means that the clock was set back.
            pause = min(self._apart, float(text or 0) + self._apart - self._clock())
            if pause > 0:
                time.sleep(pause)
            file.truncate(0)
            file.write(repr(self._clock()))


class Connections:
    """Connections to servers, each through the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY, or the system, name."""

    def __init__(self, timeout: float) -> None:
        self._timeout = urllib3.Timeout(timeout)
        self._pools: dict[str, urllib3.PoolManager] = {}

    def pool(self, url: str) -> urllib3.PoolManager:
        """Return the pool that leads to the address ``url``; one for each proxy, and one without.

        Raises UnreachableError for a proxy that is not asked by HTTP, such as a SOCKS proxy.
        """
        parts = split_url(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme, "") or proxies.get("all", "")
        if proxy and proxy_bypass(parts.netloc.rpartition("@")[2]):
            proxy = ""
        if proxy not in self._pools:
            self._pools[proxy] = self._through(proxy) if proxy else urllib3.PoolManager(timeout=self._timeout)
        return self._pools[proxy]

    def _through(self, proxy: str) -> urllib3.ProxyManager:
        # Many write "host:port" alone. The bytes of name and password are sent as they were written.
        try:
            address = urllib3.util.parse_url(proxy if "://" in proxy else f"//{proxy}")
        except urllib3.exceptions.LocationParseError:
            raise UnreachableError(
                "the proxy that HTTPS_PROXY or ALL_PROXY names is not an address (write special characters of a "
                "password as %23 for #)"
            ) from None
        address = address._replace(scheme=address.scheme or "http")
        if address.scheme not in ("http", "https"):
            # Name and password are not shown.
            raise UnreachableError(
                f"the proxy {address._replace(auth=None).url} is not an HTTP proxy; name one in HTTPS_PROXY, or in "
                "NO_PROXY the hosts that need none"
            )
        headers = urllib3.make_headers(proxy_basic_auth=unquote(address.auth, "latin-1")) if address.auth else None
        return urllib3.ProxyManager(address.url, proxy_headers=headers, timeout=self._timeout)


def check_url(url: str) -> None:
    """Raise DownloadError unless ``url`` is https, or http on this machine."""
    try:
        split_url(url)
    except ValueError as error:
        raise DownloadError(str(error)) from None


def _asked_wait(response: urllib3.BaseHTTPResponse) -> float | None:
    """Return how many seconds the server asks to wait; None if it does not, or not clearly."""
    try:
        return urllib3.Retry().get_retry_after(response)
    except urllib3.exceptions.InvalidHeader:
        return None


def _open(
    connections: Connections, url: str, headers: Mapping[str, str], limiter: RateLimiter
) -> urllib3.BaseHTTPResponse:
    """Follow redirects one by one, so that each target has to be https too."""
    asked = url
    for _ in range(_REDIRECTS + 1):
        check_url(asked)
        limiter.wait()
        response = connections.pool(asked).request(
            "GET", asked, headers=dict(headers), preload_content=False, redirect=False, retries=False
        )
        place = response.headers.get("Location")
        if response.status not in (301, 302, 303, 307, 308) or not place:
            return response
        # Its body may have no end.
        response.close()
        try:
            asked = urljoin(asked, place)
        except ValueError as error:
            raise DownloadError(f"{asked}: redirects to {place!r}, which is not an address ({error})") from None
    raise DownloadError(f"{url}: more than {_REDIRECTS} redirects")


def _total(response: urllib3.BaseHTTPResponse, start: int) -> int | None:
    """Return the length of the whole file according to the headers, in bytes; None if they do not say."""
    if response.status == 206:
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(whole) if whole.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None


def _read_marks(path: Path) -> dict[str, str]:
    """Read the URL and the validator of a part; {} if a killed job or a full disk left no complete file."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _attempt(connections: Connections, url: str, path: Path, part: Path, limiter: RateLimiter, kind: FileKind) -> None:
    """Fetch ``url``, for ``path``, into ``part``, continuing where an earlier attempt stopped."""
    marks = part.with_name(f"{part.name}.json")
    with names_checked(path):
        known = _read_marks(marks) if part.is_file() else {}
    start = part.stat().st_size if known.get("url") == url and known.get("validator") else 0
    headers = {"User-Agent": "hpaloc", "Accept-Encoding": "identity"}
    if start:
        # If the file has changed since, the server sends all of the new one.
        headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
    response = _open(connections, url, headers, limiter)
    try:
        if response.status == 416 and start:
            part.unlink()
            raise PassingError(f"{url}: the part kept from before cannot be continued (416)")
        if response.status in _PASSING:
            raise PassingError(f"{url}: the server answered {response.status}", _asked_wait(response))
        if response.status not in (200, 206):
            raise DownloadError(f"{url}: the server answered {response.status}")
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise PassingError(f"{url}: the server sent a different part than requested")
        start = start if response.status == 206 else 0
        total = _total(response, start)
        etag = response.headers.get("ETag", "")
        # A weak ETag does not promise equal bytes.
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        if "Content-Encoding" in response.headers:
            # The server cannot send the rest of what is unpacked on the way.
            validator = None
        if start and validator and validator != known["validator"]:
            # A server or cache that knows Range, but not If-Range.
            part.unlink()
            raise PassingError(f"{url}: the server sent a part of another file than before")
        with names_checked(path):
            marks.write_text(json.dumps({"url": url, "validator": validator}))
        with open(part, "ab" if start else "wb") as file:
            for chunk in response.stream(_CHUNK):
                file.write(chunk)
                if kind.most is not None and file.tell() > kind.most:
                    part.unlink()
                    raise DownloadError(f"{url}: is larger than {kind.name} may be, {kind.most} bytes")
        found = part.stat().st_size
        if total is not None and found != total:
            if found > total:
                part.unlink()
            raise PassingError(f"{url}: {found} of {total} bytes arrived")
    except BaseException:
        # A connection with an unread answer in it cannot be used again.
        response.close()
        raise
    response.release_conn()
    with open(part, "rb") as file:
        first = file.read(4)
    if not first.startswith(kind.starts):
        part.unlink()
        raise DownloadError(f"{url}: the response is not {kind.name} (it starts with {first!r})")


def fetch(
    connections: Connections,
    url: str,
    path: Path,
    limiter: RateLimiter,
    retries: RetryPolicy,
    kind: FileKind = IMAGE,
) -> None:
    """Fetch ``url`` to ``path`` in one atomic step.

    A failure that may pass (timeout, broken connection, 408, 425, 429, 5xx, fewer bytes than announced) is tried again
    after a wait that doubles, or as long as the server asks for (Retry-After, at most 10 minutes). The part that
    arrived is kept next to ``path`` and continued (Range), if the server gave a validator that detects a changed file.

    Raises PassingError after the last try, UnreachableError at once, DownloadError for what does not pass (another
    answer, a redirect away from https, content that is not of the kind), and FileNameError for a name that the file
    system refuses.
    """
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(retries.tries):
        try:
            _attempt(connections, url, path, part, limiter, kind)
            break
        except UnreachableError:
            raise
        except PassingError as error:
            passing = error
        except urllib3.exceptions.HTTPError as error:
            if isinstance(error, urllib3.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
                advice = "if your institution signs it, name it in SSL_CERT_FILE"
                raise UnreachableError(f"{url}: {error}; {advice}") from None
            passing = PassingError(f"{url}: {type(error).__name__}: {error}")
        if attempt + 1 == retries.tries:
            raise PassingError(f"{passing} (tried {retries.tries} times)")
        wait = min(_LONGEST_WAIT, passing.wait if passing.wait is not None else retries.first_wait * 2**attempt)
        # Where a run is planned, only warnings are shown.
        log.warning("%s; trying again in %.0f s", passing, wait)
        time.sleep(wait)
    with names_checked(path):
        os.replace(part, path)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _read_log(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["url"]: row for row in csv.DictReader(file)}


def _files(rows: Sequence[ManifestRow]) -> Iterator[tuple[ManifestRow, str, str, Path]]:
    for row in rows:
        for colour, path in row.paths.items():
            yield row, colour, row.urls[colour], Path(path)


def download_shard(
    rows: Sequence[ManifestRow],
    log_path: str | os.PathLike[str],
    limiter: RateLimiter,
    retries: RetryPolicy | None = None,
    max_failed_fraction: float = 0.05,
) -> None:
    """Fetch the channel files of a shard's fields and write the log of digests.

    The log so far is next to the files as ``downloads.csv``; a file in it (same URL, size and digest) is not requested
    again. A file that can never be downloaded (404 or similar, or a name that the file system refuses) becomes a row
    with a reason, which is also written in its place, for the stages that would read it; the rest of its field is not
    requested, and the other fields continue.

    rows: manifest rows with ``urls``; each file goes to its path
    log_path: the CSV to write, with the columns LOG_COLUMNS
    Raises DownloadError with the list as soon as more fields than ``max_failed_fraction`` (rounded up to whole fields)
    lack a file, and PassingError if a server failed up to the last try; the files that were fetched stay.
    """
    retries = retries or RetryPolicy()
    log_path = Path(log_path)
    folders = {Path(path).parent for row in rows for path in row.paths.values()}
    journal_path = min(folders, default=log_path.parent) / "downloads.csv"
    known = _read_log(journal_path)
    done: list[dict[str, object]] = []
    failed: dict[str, str] = {}
    journal_path.parent.mkdir(parents=True, exist_ok=True)
    connections = Connections(retries.timeout)
    wanted = list(_files(rows))
    with open(journal_path, "a", newline="", encoding="utf-8") as journal:
        writer = csv.DictWriter(journal, LOG_COLUMNS, lineterminator="\n")
        if not known and journal.tell() == 0:
            writer.writeheader()
        for row, colour, url, path in track(wanted, len(wanted), "files downloaded"):
            old = known.get(url)
            entry: dict[str, object] = {"id": row.id, "colour": colour, "url": url, "reason": ""}
            # A file that failed has no bytes in the log; the file system may refuse even to look for its name.
            fetched = old and old["bytes"] and path.is_file() and str(path.stat().st_size) == old["bytes"]
            if old and fetched and digest(path) == old["sha256"]:
                done.append(entry | {"bytes": old["bytes"], "sha256": old["sha256"]})
                continue
            if row.id in failed:
                # Without one of its colours the field is rejected.
                reason = f"not requested, because of another colour: {failed[row.id]}"
                with suppress(FileNameError):
                    write_reason(path, reason)
                done.append(entry | {"bytes": "", "sha256": "", "reason": reason})
                continue
            try:
                fetch(connections, url, path, limiter, retries)
                entry |= {"bytes": path.stat().st_size, "sha256": digest(path)}
            except PassingError:
                raise
            except FileNameError as error:
                entry |= {"bytes": "", "sha256": "", "reason": str(error)}
                log.warning("field %s: %s", row.id, error)
            except DownloadError as error:
                # A file from an earlier URL of this field must not pass as this one.
                write_reason(path, str(error))
                entry |= {"bytes": "", "sha256": "", "reason": str(error)}
                log.warning("field %s: %s", row.id, error)
            writer.writerow(entry)
            journal.flush()
            done.append(entry)
            if entry["reason"]:
                failed[row.id] = str(entry["reason"])
                if too_many(len(failed), len(rows), max_failed_fraction):
                    raise DownloadError(
                        f"{len(failed)} of {len(rows)} fields cannot be downloaded, max_rejected_fraction is "
                        f"{max_failed_fraction}; no more are requested:\n"
                        + "\n".join(f"  {id}: {reason}" for id, reason in failed.items())
                    )
    with atomic_path(log_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(done)
