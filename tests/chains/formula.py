"""The distributions of chains spelled out: enumeration over sets, for graphs of a few edges."""

from collections import defaultdict
from itertools import pairwise, permutations, product


def rows(edges, user, before=None):
    """{user: set of items}: everything of `user`, of others what is earlier than `before`."""
    rated = defaultdict(set)
    for (who, item), (_, time) in edges.items():
        if who == user or before is None or time < before:
            rated[who].add(item)
    return rated


def circle(edges, user, before=None):
    """{companion: shared items} of formula 1."""
    rated = rows(edges, user, before)
    shared = {who: rated[who] & rated[user] for who in rated if who != user}
    return {who: items for who, items in shared.items() if len(items) >= 2}


def chains(edges, user, length=1, before=None, candidates=()):
    """Probability of every (companions, items), both tuples; no item is a candidate."""
    rated, table = rows(edges, user, before), {}
    loops = {}
    for peers in permutations(circle(edges, user, before), length):
        members = (user, *peers, user)
        joints = [rated[a] & rated[b] for a, b in pairwise(members)]
        choices = [items for items in product(*joints) if len(set(items) - set(candidates)) == len(joints)]
        if choices:
            loops[peers] = choices
    for peers, choices in loops.items():
        for items in choices:
            table[peers, items] = 1 / len(loops) / len(choices)
    return table
