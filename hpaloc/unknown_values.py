"""What people and programs write in a table for a value that they do not know."""

from hpaloc.ids import alike

_UNKNOWN = frozenset(
    (
        *("na", "n/a", "n.a.", "#n/a", "<na>", "nan", "none", "null", "nil", "unknown", "notknown", "notavailable"),
        *("notapplicable", "n.d.", "undefined", "unspecified", "missing", "?", "-", "--", "–", "—"),
    )
)


def is_unknown(value: str) -> bool:
    """Return whether a value is what people and programs write for one that they do not know, such as NA."""
    return alike(value).replace(" ", "") in _UNKNOWN
