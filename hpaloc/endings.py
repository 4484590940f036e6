"""Which files of images hpaloc reads itself, and which the rule import_images reads, by their endings."""

import os
import re

# The last part of a name, also of TIFFs of microscopes and of packed files; what is in a file counts for their readers.
OWN = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".zarr", ".zip", ".gz"),
    *(".lsm", ".stk", ".svs", ".scn", ".flex", ".qptiff", ".ndpi"),
)

# The readers in envs/import.yaml.
SHIPPED = {".czi": "bioio-czi", ".lif": "bioio-lif", ".nd2": "bioio-nd2"}
# Readers of bioio that have to be added there; bioio-bioformats needs a Java, and reads more.
_TO_ADD = {
    **dict.fromkeys((".dv", ".r3d"), "bioio-dv"),
    **{".sldy": "bioio-sldy", ".vsi": "bioio-vsi"},
    **dict.fromkeys((".ics", ".ims", ".lei", ".mvd2", ".oib", ".oif", ".oir", ".zvi"), "bioio-bioformats"),
}
READERS = SHIPPED | _TO_ADD


def ending_of(path: str | os.PathLike[str]) -> str:
    """Return the ending of a file or of a pattern in small letters, with its dot; "" without one that is literal."""
    ending = os.path.splitext(os.fspath(path).rstrip("/"))[1]
    return ending.lower() if re.fullmatch(r"\.[A-Za-z]\w*", ending) else ""


def is_imported(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is one that hpaloc does not read itself, by its ending."""
    return ending_of(path) in READERS


def unknown_ending(pattern: str) -> str | None:
    """Return why nothing reads the files of a pattern, a part of a sentence; None if something does, or may."""
    ending = ending_of(pattern)
    if ending in ("", *OWN, *READERS):
        return None
    return (
        f"ends in {ending}, which nothing reads; hpaloc reads {', '.join(OWN)}, and imports {', '.join(SHIPPED)} or, "
        f"with a reader that you add, {', '.join(_TO_ADD)}"
    )
