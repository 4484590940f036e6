"""Groups of things that share something."""

from hpaloc.linking import linked_groups


def test_things_are_linked_directly_and_through_others():
    assert linked_groups([["a"], ["b"], ["a", "c"], [], ["c"], []]) == [[0, 2, 4], [1], [3], [5]]


def test_a_key_that_looks_like_a_number_links_no_thing_of_that_number():
    assert linked_groups([[(1,)], [], [1]]) == [[0], [1], [2]]
