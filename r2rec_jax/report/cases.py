"""Cases: one user's chains, reasoning steps and ranking in readable form.

A case is rebuilt from the prepared data and compared with the prompt recorded at evaluation, so it shows what
the model saw. All texts in it are untrusted and pass `plain`.
"""

import dataclasses

from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.graph import Graph
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.rating_scale import NONE, STARS
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.domains import DOMAINS
from r2rec_jax.prompts.ranking_prompt import (
    RankingRecord,
    make_record,
    peer_names,
    ranking_prompt,
    shown_titles,
)
from r2rec_jax.prompts.wording import Wording, wording_of
from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.runtime.plain_text import clean, plain
from r2rec_jax.teachers.mentions import Names

USER = "the user"  # as the rater of a hop
OFF_LIST = "(not a candidate)"


@dataclasses.dataclass(frozen=True)
class Hop:
    """One edge of a chain: rater, item and rating."""

    rater: str
    title: str
    rating: str


@dataclasses.dataclass(frozen=True)
class Step:
    """A line of the reasoning, and the parts of the prompt that it names, e.g. "chain 2", "candidate 7"."""

    text: str
    names: list[str]


@dataclasses.dataclass(frozen=True)
class Case:
    """One user's prompt and the model's answer.

    user: id in the raw files. demographics: may be empty. likes: titles, oldest first. history: rated items,
    oldest first; empty if the prompt has no history. chains: hops in the order of the prompt. candidates:
    titles in the order of the prompt; `truth` is the index of the held-out item. ranking: the parsed answer,
    best first, OFF_LIST for a name that is no candidate. hit_rank: rank of the held-out item, 0 for a miss.
    valid: whether the answer has the required form; an invalid answer is a miss. genres: title -> genres,
    also if the prompt has no genres. verb: what a person did with an item, "rated" if the log has ratings.
    """

    user: str
    demographics: dict[str, str]
    likes: list[str]
    chains: list[list[Hop]]
    candidates: list[str]
    truth: int
    steps: list[Step]
    ranking: list[str]
    hit_rank: int
    genres: dict[str, str] = dataclasses.field(default_factory=dict)
    history: list[Hop] = dataclasses.field(default_factory=list)
    verb: str = "rated"
    valid: bool = True

    @property
    def liked(self) -> str:
        """The verb for a like: "liked", or the event's verb in a log without ratings."""
        return "liked" if self.verb == "rated" else self.verb


def build_case(
    row: dict,
    dataset: Dataset,
    graph: Graph,
    prompt: PromptConfig,
    *,
    seed: int,
    before_target_time: bool,
) -> Case:
    """Builds the case of one line of users.jsonl; `prompt` and `seed` are those of the evaluation.

    Raises:
      UserError: data and settings do not reproduce the recorded prompt, or the line has none.
    """
    if not _is_complete(row):
        raise UserError(f"the line of user {_id(row, dataset)} was not written by launch.eval: run it again")
    words = wording_of(prompt.wording, dataset)
    full = make_record(
        dataset,
        graph,
        row["user"],
        chains=prompt.chains,
        likes=prompt.likes,
        history=prompt.history,
        seed=seed,
        length=prompt.chain_length,
        selection=prompt.chain_selection,
        before_target_time=before_target_time,
    )
    record = _as_shown(full, row, dataset, words, prompt)
    titles, peers = shown_titles(record, dataset.catalog, words), peer_names(record.chains, words)
    return Case(
        user=clean(dataset.catalog.user_ids[record.user]),
        demographics={clean(name): clean(value) for name, value in record.demographics.items()},
        likes=[words.title(dataset.catalog, item) for item in record.likes],
        chains=[_hops(chain, dataset, words, peers) for chain in record.chains],
        candidates=titles,
        truth=record.candidates.tolist().index(record.truth),
        steps=_steps(row["reasoning"], record, dataset, words),
        ranking=[OFF_LIST if title is None else plain(title) for title in row["ranking"]],
        hit_rank=row["truth_rank"],
        valid=row.get("valid", True),
        genres={
            words.title(dataset.catalog, item): ", ".join(map(clean, dataset.catalog.genres[item]))
            for item in _shown(record)
        },
        history=[
            Hop(USER, words.title(dataset.catalog, item), _shown_rating(rating, words))
            for item, rating in record.history
        ],
        verb="rated" if words.scale.kind == STARS else DOMAINS.get(prompt.wording, DOMAINS["items"]).did,
    )


def choose(rows: list[dict]) -> list[dict]:
    """The first user with rank 1, the first with a lower rank, and the first miss."""
    outcomes = (lambda rank: rank == 1, lambda rank: rank > 1, lambda rank: rank == 0)
    chosen = (next((row for row in rows if outcome(row["truth_rank"])), None) for outcome in outcomes)
    return [row for row in chosen if row is not None]


def _id(row: dict, dataset: Dataset) -> str:
    return shown(dataset.catalog.user_ids[row["user"]], 100)


def _is_complete(row: dict) -> bool:
    ranking = row.get("ranking")
    texts = isinstance(row.get("prompt"), str) and isinstance(row.get("reasoning"), str)
    return texts and isinstance(ranking, list) and all(isinstance(title, str | None) for title in ranking)


def _as_shown(
    record: RankingRecord, row: dict, dataset: Dataset, words: Wording, prompt: PromptConfig
) -> RankingRecord:
    """The record without what did not fit the prompt; pipeline.prompt_source.fit drops in the same order."""
    form = {"answer": prompt.answer, "places": prompt.places, "reasoning": prompt.reasoning}
    while ranking_prompt(record, dataset.catalog, words, **form) != row["prompt"]:
        if record.chains:
            record = dataclasses.replace(record, chains=record.chains[1:])
        elif record.likes:
            record = dataclasses.replace(record, likes=record.likes[1:])
        elif record.history:
            record = dataclasses.replace(record, history=record.history[1:])
        else:
            raise UserError(
                f"the recorded prompt of user {_id(row, dataset)} does not match these data and this "
                "config: pass the config and the data folder of the evaluation"
            )
    return record


def _hops(chain: Chain, dataset: Dataset, words: Wording, names: dict[int, str]) -> list[Hop]:
    return [
        Hop(names.get(who, USER), words.title(dataset.catalog, item), _shown_rating(rating, words))
        for who, item, rating in chain.edges
    ]


def _shown_rating(rating: float, words: Wording) -> str:
    return "" if words.scale.kind == NONE else words.rating(rating)


def _shown(record: RankingRecord) -> list[int]:
    in_chains = (item for chain in record.chains for item in chain.items)
    rated = (item for item, _ in record.history)
    return sorted({*record.likes, *rated, *in_chains, *record.candidates.tolist()})


def _steps(reasoning: str, record: RankingRecord, dataset: Dataset, words: Wording) -> list[Step]:
    candidates = record.candidates.tolist()
    names = Names(_shown(record), dataset.catalog, words)
    steps = []
    for line in filter(None, map(plain, reasoning.splitlines())):
        mentioned = set().union(*names.read(line)[0])
        parts = ["like"] if mentioned.intersection(record.likes) else []
        parts += [
            f"chain {k}" for k, chain in enumerate(record.chains, 1) if mentioned.intersection(chain.items)
        ]
        parts += [f"candidate {k}" for k, item in enumerate(candidates, 1) if item in mentioned]
        steps.append(Step(line, parts))
    return steps
