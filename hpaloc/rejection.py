"""When too many fields are rejected."""

import math
from collections.abc import Sequence


def too_many(rejected: int, fields: int, most: float) -> bool:
    """Return whether more fields are rejected than the fraction ``most`` of them, rounded up: a shard may lose one."""
    # Rounded first: 0.07 * 100 is a bit more than 7.
    return rejected > math.ceil(round(most * fields, 9))


class TooManyRejected(RuntimeError):
    """More fields were rejected than `max_rejected_fraction` allows; `rejected` lists (field, reason)."""

    def __init__(self, rejected: Sequence[tuple[str, str]], n_fields: int, fraction: float) -> None:
        self.rejected = list(rejected)
        lines = "\n".join(f"  {field}: {reason}" for field, reason in self.rejected)
        super().__init__(
            f"{len(self.rejected)} of {n_fields} fields rejected, max_rejected_fraction is {fraction}:\n{lines}"
        )


def check_rejected(rejected: Sequence[tuple[str, str]], n_fields: int, fraction: float) -> None:
    """Raise TooManyRejected if ``rejected``, (field, reason) of each, are ``too_many`` of ``n_fields``."""
    if too_many(len(rejected), n_fields, fraction):
        raise TooManyRejected(rejected, n_fields, fraction)
