"""Groups of fields that must stay together: fields of one antibody, and near-duplicates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from hpaloc.tables import REFERENCE_COLOURS

# Out of 189 bits (three hashes of 63), and in proportion where a colour is lacking. Two images of one field differ in
# far fewer, two fields of one slide in about half; docs/data.md has the two distributions.
DUPLICATE_BITS = 20

_HASHES = tuple(f"hash_{colour}" for colour in REFERENCE_COLOURS)


def near_duplicates(hashes: np.ndarray, max_bits: int | None = None) -> np.ndarray:
    """Find the pairs of fields whose perceptual hashes are nearly the same.

    Every pair is compared, as a matrix product of ±1 bits in blocks.

    hashes: (n, 1 to 3) uint64, one column per reference colour
    max_bits: of all bits; None for DUPLICATE_BITS, or its share if there are fewer than three colours
    Returns (k, 2) int64 row numbers, i < j, of the pairs that differ in at most ``max_bits``.
    """
    n = len(hashes)
    if max_bits is None:
        max_bits = DUPLICATE_BITS * hashes.shape[1] // len(REFERENCE_COLOURS)
    octets = np.ascontiguousarray(hashes.astype(">u8")).view(np.uint8).reshape(n, -1)
    bits = np.unpackbits(octets, axis=1).astype(np.float32) * 2 - 1
    block = 4096
    pairs = []
    for i in range(0, n, block):
        for j in range(i, n, block):
            # bits @ bits.T counts equal minus unequal bits.
            alike = bits[i : i + block] @ bits[j : j + block].T >= bits.shape[1] - 2 * max_bits
            if i == j:
                alike = np.triu(alike, 1)
            pairs.append(np.argwhere(alike) + np.array([i, j]))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def group_fields(fields: pd.DataFrame, group_by: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Group the fields that must stay in one part of the split.

    fields: columns field and, if known, those that ``group_by`` names and the hashes of FIELDS
    group_by: columns such as antibody, duplicates, field; fields that share any of these criteria, directly or through
    a third field, are one group; a criterion without values in the table is ignored
    Returns the groups, (n,) str, each named after its first field, and a summary: the criteria used and the numbers of
    groups and of near-duplicate pairs.
    """
    names = fields["field"].to_numpy(str)
    n = len(names)
    links = []
    summary: dict[str, Any] = {"group_by": []}
    for column in group_by:
        if column in ("duplicates", "field") or column not in fields or not fields[column].notna().any():
            continue
        codes = pd.factorize(fields[column])[0]
        known = np.flatnonzero(codes >= 0)
        first = {code: row for row, code in reversed([*zip(known, codes[known], strict=True)])}
        links.append(np.array([(first[codes[row]], row) for row in known]).reshape(-1, 2))
        summary["group_by"].append(column)
    # The hash of a colour that the collection lacks is empty in every field, that of blue in rejected fields only.
    hashes = [column for column in _HASHES if column in fields and fields[column].notna().any()]
    if "duplicates" in group_by and hashes:
        hashed = np.flatnonzero(fields[hashes].notna().all(axis=1))
        if len(hashed):
            pairs = near_duplicates(fields[hashes].iloc[hashed].to_numpy(np.uint64))
            links.append(hashed[pairs])
            summary["group_by"].append("duplicates")
            summary["duplicate_pairs"] = len(pairs)
    if not links:
        summary["group_by"].append("field")
    edges = np.concatenate(links) if links else np.empty((0, 2), np.int64)
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    name_of = pd.Series(names).groupby(component).min()
    groups = name_of.loc[component].to_numpy(str)
    summary["groups"] = len(name_of)
    return groups, summary
