"""Closed interaction chains `u0 -r00- i0 -r10- u1 -r11- i1 -r01- u0`, with one or more companions."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A further companion of a chain: `peer` gave the previous item `rating` and `item` `next_rating`."""

    rating: float
    peer: int
    next_rating: float
    item: int


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A closed loop through companions.

    `user` and `peer` both rated `i0`. `peer` and the next companion both rated `i1`, and so on. The last
    companion and `user` both rated the last item. In the paper's chain there is one companion and `more` is
    empty.

    r00 and r01 are the user's ratings of i0 and of the last item. r10 and r11 are the peer's ratings of i0
    and i1.
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
        """(user, item, rating) in the order of the loop, starting and ending with an edge of `user`."""
        edges = [
            (self.user, self.i0, self.r00),
            (self.peer, self.i0, self.r10),
            (self.peer, self.i1, self.r11),
        ]
        for link in self.more:
            edges += [(link.peer, edges[-1][1], link.rating), (link.peer, link.item, link.next_rating)]
        return [*edges, (self.user, self.items[-1], self.r01)]
