"""Groups of things that share something, directly or through others, without any package."""

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

    # A number in a tuple of one is no key of anybody's.
    own: list[tuple[int]] = []
    for number, of_thing in enumerate(keys):
        own.append((number,))
        for key in of_thing:
            above[root((number,))] = root(("key", key))
    groups: dict[Hashable, list[int]] = {}
    for thing in own:
        groups.setdefault(root(thing), []).append(thing[0])
    return list(groups.values())
