"""Closed interaction chains `u0 -r00- i0 -r10- u1 -r11- i1 -r01- u0`, and longer ones."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """What a further companion adds to a chain: its rating of the item before, itself, its rating of
    the item after it, and that item."""

    rating: float
    peer: int
    next_rating: float
    item: int


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A loop through companions: `user` and `peer` both rated `i0`, `peer` and the next one `i1`, and
    so on; `user` rated the last item. With one companion, the paper's chain, `more` is empty and both
    rated both items.

    r00 and r01 are the user's ratings of i0 and of the last item; r10, r11 the peer's of i0, i1.
    """

    user: int
    r00: float
    i0: int
    r10: float
    peer: int
    r11: float
    i1: int
    r01: float
    more: tuple[Link, ...] = ()

    @property
    def peers(self) -> tuple[int, ...]:
        return (self.peer, *(link.peer for link in self.more))

    @property
    def items(self) -> tuple[int, ...]:
        return (self.i0, self.i1, *(link.item for link in self.more))

    @property
    def edges(self) -> list[tuple[int, int, float]]:
        """(who, item, rating) in the order of the loop: every peer rated the item before it and the one
        after it, the user closes the loop at both ends."""
        edges = [
            (self.user, self.i0, self.r00),
            (self.peer, self.i0, self.r10),
            (self.peer, self.i1, self.r11),
        ]
        for link in self.more:
            edges += [(link.peer, edges[-1][1], link.rating), (link.peer, link.item, link.next_rating)]
        return [*edges, (self.user, self.items[-1], self.r01)]
