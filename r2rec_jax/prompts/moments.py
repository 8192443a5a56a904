"""Pretraining queries from a prepared log, with rows of all users before their cutoffs as targets.

A moment is a row of the log before its user's cutoff. The rows of the user above it are the history, and
its item is the prediction target. Held-out items and later rows of their users never occur in the text:
neither as a target, nor in a history, nor in a chain.

The candidates of a moment are drawn independently of the target, so a list carries no information about it.
If lists contained the target, a model of R2Rec-mini's size learned to answer with any item of the list and
predicted the target less accurately (BUILD.md, R2Rec-mini). Its answers are constrained to the candidates
instead (rollout/constrain.py).
"""

import dataclasses

import numpy as np

from r2rec_jax.chains.graph import Graph
from r2rec_jax.chains.recent import recent_chains
from r2rec_jax.chains.sampler import RECENT
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.runtime.errors import UserError

LEAST = 5  # smallest number of rated items before a moment


@dataclasses.dataclass(frozen=True)
class Window:
    """A section of a user's history: (item, rating), oldest first."""

    user: int
    rated: list[tuple[int, float]]


class Moments:
    """Draws moments: `window` a section of history, `moment` a row, and `record` makes the query of a row."""

    def __init__(self, dataset: Dataset, graph: Graph, config: PromptConfig):
        """`config` is the `prompt` section of a config.

        Raises:
          UserError: a chain selection other than "recent", or more than one companion per chain.
        """
        if (config.chain_selection, config.chain_length) != (RECENT, 1):
            raise UserError(
                f"prompt.chain_selection={config.chain_selection!r}, chain_length={config.chain_length}: "
                f"pretraining needs chain_selection {RECENT!r} and chain_length 1"
            )
        self.dataset, self.graph, self.config = dataset, graph, config
        log = dataset.interactions
        self.user, self.item, self.rating = map(np.asarray, (log.user, log.item, log.rating))
        self.offsets, self.cutoff = np.asarray(log.offsets), np.asarray(dataset.split.cutoff)
        rows = np.arange(len(self.user))
        seen = rows < self.cutoff[self.user]
        self.liked = np.flatnonzero(seen & (self.rating > dataset.split.like_above))
        self.targets = self.liked[self.liked >= self.offsets[self.user[self.liked]] + LEAST]
        self.known_items = np.unique(self.item[seen])
        self.popularity = np.diff(graph.item_offsets)

    def window(self, rng: np.random.Generator, width: int) -> Window:
        """Up to `width` consecutive items of a user, who is drawn in proportion to the number of ratings."""
        user = int(self.user[rng.integers(len(self.user))])
        start, stop = int(self.offsets[user]), int(self.cutoff[user])
        last = start + int(rng.integers(1, max(2, stop - start + width)))
        return Window(user, self.rated(max(start, last - width), min(last, stop)))

    def moment(self, rng: np.random.Generator) -> int:
        """Draws a row with a liked item and at least LEAST rated items of the user before it."""
        return int(self.targets[rng.integers(len(self.targets))])

    def before(self, row: int, most: int) -> list[tuple[int, float]]:
        """The last `most` (item, rating) pairs of the row's user before the row."""
        return self.rated(max(int(self.offsets[self.user[row]]), row - most), row)

    def record(
        self, row: int, rng: np.random.Generator, *, options: int, history: int, likes: int, chains: int
    ) -> RankingRecord:
        """The query of the moment `row`, with `options` candidates.

        `history`, `likes` and `chains` are the largest numbers of rated items, likes and chains.
        """
        user, truth = int(self.user[row]), int(self.item[row])
        start = int(self.offsets[user])
        liked = self.liked[np.searchsorted(self.liked, start) : np.searchsorted(self.liked, row)]
        candidates = self.known_items[rng.integers(len(self.known_items), size=options)]
        return RankingRecord(
            user=user,
            demographics=self.dataset.catalog.demographics[user],
            likes=self.item[liked[max(0, len(liked) - likes) :]].tolist(),
            chains=recent_chains(self.graph, user, self.item[start:row], chains, rng),
            candidates=candidates.astype(np.int32),
            popularity=self.popularity[candidates],
            truth=truth,
            history=self.before(row, history),
        )

    def rated(self, start: int, stop: int) -> list[tuple[int, float]]:
        """(item, rating) of the rows start:stop of the log."""
        return list(zip(self.item[start:stop].tolist(), self.rating[start:stop].tolist(), strict=True))
