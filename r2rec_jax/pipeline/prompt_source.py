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
    """A query in ids, its text, its tokens, and the candidates as the text names them.

    dropped_chains, dropped_likes: how many of the user's the record lacks because they did not fit; rated
    items of the history count as likes.
    """

    record: RankingRecord
    text: str
    tokens: np.ndarray
    titles: list[str]
    dropped_chains: int = 0
    dropped_likes: int = 0

    @property
    def id(self) -> int:
        """The user: what the prompt's completions depend on besides seed and index."""
        return self.record.user


class RankingPrompts:
    """Prompt k is user k's; the same whatever the order or the number of workers.

    One that is longer than the largest of `config.buckets` loses chains, likes, history (see `fit`).
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
        """`config` is a config's `prompt` section; `seed` draws the chains; with `before_target_time`
        (data.before_target_time) they show nobody's ratings from the truth's time on."""
        self.dataset, self.users, self.chat, self.config, self.seed = (
            dataset,
            users,
            chat,
            PromptConfig.read(config),
            seed,
        )
        self.before_target_time = before_target_time
        if config.item_tokens and chat.first_item is None:
            raise UserError("prompt.item_tokens is for LLaRA, trained by configs/llara.py: leave it out here")
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
        return vars(self) | {"graph": None}  # sooner built anew in another process than sent there

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self.graph = build_graph(self.dataset)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, k: int) -> Prompt:
        return fit(self.record(k), self.dataset.catalog, self.wording, self.chat, self.config)

    def widths(self) -> np.ndarray:
        """The bucket of every prompt, int [len(self)]. Makes them all, about 3 ms each: what is left out
        where they do not fit cannot be known before."""
        buckets = np.sort(self.config.buckets)
        return buckets[np.searchsorted(buckets, [len(self[k].tokens) for k in range(len(self))])]

    def shortest(self, k: int) -> Prompt:
        """Prompt k with its candidates alone. Raises UserError where even that fits no bucket."""
        record = self.record(k, chains=0, likes=0, history=0)
        return fit(record, self.dataset.catalog, self.wording, self.chat, self.config)

    def record(
        self, k: int, *, chains: int | None = None, likes: int | None = None, history: int | None = None
    ) -> RankingRecord:
        """User k's query whole, before `fit`; or with so many chains, likes and rated items."""
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
    """The record's prompt within max(config.buckets) tokens, `config` being a `prompt` section.

    What is too long loses its first chain, again and again, since of recent ones the last is the latest; then
    its oldest like, then the oldest of its history; never a candidate.

    Raises:
      UserError: candidates and request alone are too long.
    """
    whole, budget = record, max(config.buckets)
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
                f"prompt.buckets {tuple(config.buckets)} hold: add a larger bucket"
            )
    return Prompt(
        record,
        without_item_tokens(text),
        tokens,
        shown_titles(record, catalog, words),
        dropped_chains=len(whole.chains) - len(record.chains),
        dropped_likes=len(whole.likes + whole.history) - len(record.likes + record.history),
    )


def not_shown(chains: float, likes: float, buckets: tuple[int, ...]) -> str:
    """What to tell of so many chains and likes that did not fit; "" of none."""
    if not (chains or likes):
        return ""
    return (
        f"{chains:.3g} chains and {likes:.3g} likes did not fit prompt.buckets, the largest of which is "
        f"{max(buckets)} tokens"
    )


def open_turn(chat: Chat, text: str, reasoning: bool) -> list[int]:
    """`chat.prompt`; without `reasoning` the block for it is closed, so that the answer comes next."""
    return chat.prompt(text) if reasoning else [*chat.prompt(text), chat.end_think]


def closed_answer(chat: Chat, answer: str) -> list[int]:
    """What continues a turn that `open_turn` opened without reasoning: the answer and the end token."""
    rest = chat.completion("", answer)
    return rest[rest.index(chat.end_think) + 1 :]


def pad_prompts(prompts: list[Prompt], buckets: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int32 [B, P], length int32 [B]) of a batch, right-padded to a bucket."""
    rows = [prompt.tokens for prompt in prompts]
    return pad(rows, buckets), np.array([len(row) for row in rows], np.int32)
