"""The file in the place of an image that could not be had; it says why, to every stage that would read the image."""

import os

from hpaloc.files import write_text

# The start of such a file; the reason follows.
NOT_MADE = b"hpaloc has no image: "


def write_reason(path: str | os.PathLike[str], reason: str) -> None:
    """Write to ``path`` the reason why it has no image; ``decode`` raises ImageError with that reason."""
    write_text(path, f"{NOT_MADE.decode()}{reason}")
