"""Ranking prompts as a random-access source: user -> chains -> text -> tokens -> padded batch."""

import dataclasses

import numpy as np

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.pipeline.batches import pad
from r2rec_jax.prompts.chat import Chat, without_item_tokens
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import RankingRecord, make_record, ranking_prompt, shown_titles
from r2rec_jax.prompts.wording import Wording, wording_of
from r2rec_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """A record, its prompt text, its token ids int32[P], and the candidates' titles in the text.

    dropped_chains, dropped_likes: number of chains and likes that were dropped from the record because they
      did not fit. Dropped items of the history count as likes.
    """

    record: RankingRecord
    text: str
    tokens: np.ndarray
    titles: list[str]
    dropped_chains: int = 0
    dropped_likes: int = 0

    @property
    def id(self) -> int:
        """The user, which with seed and index determines the random keys of the prompt's completions."""
        return self.record.user


class RankingPrompts:
    """Prompt k is that of `users[k]`. It does not depend on the order of access or the number of workers.

    A prompt longer than the largest of `config.buckets` loses chains, likes and history (see `fit`).
    """

    def __init__(
        self,
        dataset: Dataset,
        users: np.ndarray,
        chat: Chat,
        config: PromptConfig,
        seed: int,
        *,
        before_target_time: bool = False,
    ):
        """config: the `prompt` section of a config.

        seed: seed of the chains.
        before_target_time: data.before_target_time. If set, chains contain only companions' ratings before
          the held-out item's time.
        """
        self.dataset, self.users, self.chat, self.config, self.seed = (
            dataset,
            users,
            chat,
            PromptConfig.read(config),
            seed,
        )
        self.before_target_time = before_target_time
        if config.item_tokens and chat.first_item is None:
            raise UserError(
                "prompt.item_tokens is only for LLaRA, trained by configs/llara.py: set it to false"
            )
        count = dataset.split.candidates.shape[1]
        if config.places > count:
            raise UserError(
                f"prompt.places={config.places}: the data have {count} candidates a user, "
                f"so use at most {count}"
            )
        self.graph = build_graph(dataset)
        self.wording = wording_of(config.wording, dataset)
        names = len(self.wording.peers)
        if config.chains * config.chain_length > names:
            raise UserError(
                f"prompt.chains={config.chains} of prompt.chain_length={config.chain_length} may show more "
                f"people than the {names} that wording {config.wording!r} has names for: use fewer"
            )

    def __getstate__(self) -> dict:
        return vars(self) | {"graph": None}  # rebuilding it in another process is faster than pickling it

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self.graph = build_graph(self.dataset)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, k: int) -> Prompt:
        return fit(self.record(k), self.dataset.catalog, self.wording, self.chat, self.config)

    def widths(self) -> np.ndarray:
        """The bucket of every prompt, int [len(self)].

        Makes all prompts, about 3 ms each, because the length depends on what `fit` drops.
        """
        buckets = np.sort(self.config.buckets)
        return buckets[np.searchsorted(buckets, [len(self[k].tokens) for k in range(len(self))])]

    def shortest(self, k: int) -> Prompt:
        """Prompt k without chains, likes and history. Raises UserError if even that fits no bucket."""
        record = self.record(k, chains=0, likes=0, history=0)
        return fit(record, self.dataset.catalog, self.wording, self.chat, self.config)

    def record(
        self, k: int, *, chains: int | None = None, likes: int | None = None, history: int | None = None
    ) -> RankingRecord:
        """The complete record of user k, before `fit`.

        chains, likes, history: their largest numbers, by default those of the config.
        """
        c = self.config
        return make_record(
            self.dataset,
            self.graph,
            int(self.users[k]),
            chains=c.chains if chains is None else chains,
            likes=c.likes if likes is None else likes,
            history=c.history if history is None else history,
            seed=self.seed,
            length=c.chain_length,
            selection=c.chain_selection,
            before_target_time=self.before_target_time,
        )


def fit(record: RankingRecord, catalog: Catalog, words: Wording, chat: Chat, config: PromptConfig) -> Prompt:
    """Makes the record's prompt within max(config.buckets) tokens. `config` is a `prompt` section.

    If the prompt is too long, chains are dropped from the first one on, since the last is the most recent.
    Then the oldest likes are dropped, then the oldest items of the history, but never a candidate.

    Raises:
      UserError: the candidates and the request alone are too long.
    """
    full, budget = record, max(config.buckets)
    while True:
        text = ranking_prompt(
            record,
            catalog,
            words,
            answer=config.answer,
            places=config.places,
            reasoning=config.reasoning,
            item_tokens=config.item_tokens,
        )
        tokens = np.array(open_turn(chat, text, config.reasoning), np.int32)
        if len(tokens) <= budget:
            break
        if record.chains:
            record = dataclasses.replace(record, chains=record.chains[1:])
        elif record.likes:
            record = dataclasses.replace(record, likes=record.likes[1:])
        elif record.history:
            record = dataclasses.replace(record, history=record.history[1:])
        else:
            raise UserError(
                f"the candidates of user {record.user} alone need {len(tokens)} tokens, more than "
                f"prompt.buckets {tuple(config.buckets)} allow: add a larger bucket, e.g. "
                f'--config.prompt.buckets="{(*config.buckets, -(-len(tokens) // 64) * 64)}"'
            )
    return Prompt(
        record,
        without_item_tokens(text),
        tokens,
        shown_titles(record, catalog, words),
        dropped_chains=len(full.chains) - len(record.chains),
        dropped_likes=len(full.likes + full.history) - len(record.likes + record.history),
    )


def dropped_message(chains: float, likes: float, buckets: tuple[int, ...]) -> str:
    """A message about the numbers of chains and likes that did not fit; "" if both are 0."""
    if not (chains or likes):
        return ""
    return (
        f"{chains:.3g} chains and {likes:.3g} likes did not fit prompt.buckets, the largest of which is "
        f"{max(buckets)} tokens"
    )


def open_turn(chat: Chat, text: str, reasoning: bool) -> list[int]:
    """`chat.prompt`. Without `reasoning` the think block is closed, so that the answer comes next."""
    return chat.prompt(text) if reasoning else [*chat.prompt(text), chat.end_think]


def closed_answer(chat: Chat, answer: str) -> list[int]:
    """The continuation of `open_turn` without reasoning: the answer and the end token."""
    rest = chat.completion("", answer)
    return rest[rest.index(chat.end_think) + 1 :]


def pad_prompts(prompts: list[Prompt], buckets: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int32 [B, P], length int32 [B]) of a batch, right-padded to a bucket."""
    rows = [prompt.tokens for prompt in prompts]
    return pad(rows, buckets), np.array([len(row) for row in rows], np.int32)
