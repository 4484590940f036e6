"""Groups of things that share something, directly or through others."""

from collections.abc import Hashable, Iterable


def linked_groups(keys: Iterable[Iterable[Hashable]]) -> list[list[int]]:
    """Return the groups of things with common keys, each as the numbers of its things, in the order of their first.

    keys: those of each thing; a thing without any is a group of its own
    """
    above: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    n_things = 0
    for number, of_thing in enumerate(keys):
        n_things += 1
        for key in of_thing:
            above[root(("thing", number))] = root(("key", key))
    groups: dict[Hashable, list[int]] = {}
    for number in range(n_things):
        groups.setdefault(root(("thing", number)), []).append(number)
    return list(groups.values())
