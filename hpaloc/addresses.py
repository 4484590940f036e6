"""Addresses of files on the web."""

import re
from urllib.parse import SplitResult, urlsplit


def is_address(path: str) -> bool:
    """Return whether a setting names an address (https://…), not a file or folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def split_url(url: str) -> SplitResult:
    """Return the parts of an address; raise ValueError with the reason unless it is https, or http on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url}: is not an address ({error})") from None
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ValueError(f"{url}: only https is allowed")
    if not parts.hostname:
        raise ValueError(f"{url}: has no host")
    return parts
