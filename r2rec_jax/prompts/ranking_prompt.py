"""The ranking prompt: a user's demographics, history, likes and chains, and the candidates to rank."""

import dataclasses
import functools

import numpy as np

from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.graph import Graph
from r2rec_jax.chains.sampler import sample_chains
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.prompts.chat import item_token
from r2rec_jax.prompts.wording import ANSWERS, Wording
from r2rec_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class RankingRecord:
    """The content of one user's prompt as ids, and the held-out item `truth`, which the prompt does not mark.

    likes: recently liked items, oldest first.
    chains: interaction chains. If empty, the prompt has no such section.
    candidates: int32[C], including the held-out item.
    popularity: int64[C], the number of visible ratings of each candidate. Teachers break ties with it. It is
      not part of the prompt.
    history: recently rated items with their ratings, oldest first. If empty, the prompt has no such section.
    """

    user: int
    demographics: dict[str, str]
    likes: list[int]
    chains: list[Chain]
    candidates: np.ndarray
    popularity: np.ndarray
    truth: int
    history: list[tuple[int, float]] = dataclasses.field(default_factory=list)


def make_record(
    dataset: Dataset,
    graph: Graph,
    user: int,
    *,
    chains: int,
    likes: int,
    history: int = 0,
    seed: int,
    length: int = 1,
    selection: str = "uniform",
    before_target_time: bool = False,
) -> RankingRecord:
    """Draws the user's chains from (seed, user) and collects the rest of the query.

    chains, length, selection: number of chains, companions per chain, and selection (see sample_chains).
    before_target_time: whether chains contain only companions' ratings before the held-out item's time.

    Raises:
      UserError: the user is in no group of the split, so it has no candidates.
      AssertionError: a candidate occurs in a chain, the likes or the history, which would be a leak.
    """
    candidates = np.array(dataset.split.candidates[user])
    if candidates[0] < 0:
        raise UserError(f"user {user} has no candidates: choose users from the groups of the split")
    drawn = draw_chains(
        dataset,
        graph,
        user,
        chains=chains,
        seed=seed,
        length=length,
        selection=selection,
        before_target_time=before_target_time,
    )
    liked = dataset.recent_likes(user, likes).tolist()
    rated = recent_ratings(dataset, user, history)
    shown = {item for chain in drawn for item in chain.items} | set(liked) | {item for item, _ in rated}
    assert shown.isdisjoint(candidates.tolist()), f"user {user}: the prompt shows a candidate"
    return RankingRecord(
        user=int(user),
        demographics=dataset.catalog.demographics[user],
        likes=liked,
        chains=drawn,
        candidates=candidates,
        popularity=np.diff(graph.item_offsets)[candidates],
        truth=int(dataset.split.truth[user]),
        history=rated,
    )


def draw_chains(
    dataset: Dataset,
    graph: Graph,
    user: int,
    *,
    chains: int,
    seed: int,
    length: int,
    selection: str,
    before_target_time: bool,
) -> list[Chain]:
    """Draws the chains of the prompt of `user`. Arguments as in `make_record`."""
    return sample_chains(
        graph,
        user,
        chains,
        np.random.default_rng([seed, user]),
        length=length,
        selection=selection,
        candidates=np.array(dataset.split.candidates[user]),
        history=dataset.interactions.item[dataset.history(user)],
        before=dataset.truth_time(user) if before_target_time else None,
    )


def recent_ratings(dataset: Dataset, user: int, n: int, before: int | None = None) -> list[tuple[int, float]]:
    """The last `n` items that the user rated, oldest first, with their ratings.

    before: a row of the log. Only rows before it are used. Default: the whole history.
    """
    rows = dataset.history(user)
    stop = rows.stop if before is None else before
    rows = slice(max(rows.start, stop - n), stop)
    log = dataset.interactions
    return list(zip(log.item[rows].tolist(), log.rating[rows].tolist(), strict=True))


def ranking_prompt(
    record: RankingRecord,
    catalog: Catalog,
    wording: Wording,
    *,
    answer: str,
    places: int,
    reasoning: bool = True,
    item_tokens: bool = False,
) -> str:
    """The text of the user turn.

    answer: how the answer names candidates, "titles" or "numbers".
    places: number of candidates to rank.
    reasoning: if False, the prompt requests the answer only (the paper's Table 2, "no reasoning chain").
    item_tokens: whether `item_token` follows the titles of likes, history and candidates.

    Raises:
      UserError: an unknown `answer`, or `places` outside 1..C.
    """
    if answer not in ANSWERS:
        raise UserError(f"answer={answer!r}: use {' or '.join(ANSWERS)}")
    count = len(record.candidates)
    if not 1 <= places <= count:
        raise UserError(f"places={places}: there are {count} candidates to rank")
    parts = [context_text(record, catalog, wording, answer=answer, item_tokens=item_tokens)]
    request, form = wording.request, wording.form
    if places == count:
        request = wording.request_all
    elif places == 1:
        request, form = wording.request_one, wording.form_one
    parts.append(request.format(places=places, count=count))
    evidence = "chains" if record.chains else "likes" if record.likes else "neither"
    parts.append(wording.reason[evidence] if reasoning else wording.no_reason)
    parts.append(form[answer].format(places=places))
    return "".join(parts)


def context_text(
    record: RankingRecord, catalog: Catalog, wording: Wording, *, answer: str, item_tokens: bool = False
) -> str:
    """The prompt before the request: demographics, history, likes, chains and candidates."""
    fill = functools.partial(item_text, catalog=catalog, wording=wording, item_tokens=item_tokens)
    parts = [wording.traits(record.demographics, wording.about)]
    if record.history:
        rated = [
            rated_text(item, rating, catalog, wording, item_tokens=item_tokens)
            for item, rating in record.history
        ]
        parts.append(wording.history.format(history=wording.like_joiner.join(rated)))
    if record.likes:
        likes = [fill(wording.like, item) for item in record.likes]
        parts.append(wording.likes.format(likes=wording.like_joiner.join(likes)))
    if record.chains:
        names = peer_names(record.chains, wording)
        chains = [
            wording.chain.format(
                number=k,
                links="".join(
                    wording.link.format(**link) for link in link_facts(chain, catalog, wording, names)
                ),
                **chain_facts(chain, catalog, wording, names),
            )
            for k, chain in enumerate(record.chains, 1)
        ]
        parts.append(wording.chains.format(chains="\n".join(chains)))
    candidates = [
        fill(wording.candidate[answer], item, number=k) for k, item in enumerate(record.candidates, 1)
    ]
    parts.append(wording.candidates.format(candidates=wording.candidate_joiner.join(candidates)))
    return "".join(parts)


def rated_text(
    item: int, rating: float, catalog: Catalog, wording: Wording, *, item_tokens: bool = False
) -> str:
    """The text of one rated item of a history."""
    options = {"catalog": catalog, "wording": wording, "item_tokens": item_tokens}
    return item_text(wording.rated, item, rating=wording.rating(rating), **options)


def shown_titles(record: RankingRecord, catalog: Catalog, wording: Wording) -> list[str]:
    """The candidates' titles as the prompt shows them. Answers are compared with these."""
    return [wording.title(catalog, item) for item in record.candidates]


def peer_names(chains: list[Chain], wording: Wording) -> dict[int, str]:
    """The name of each companion in the prompt, assigned in order of appearance.

    Raises:
      UserError: there are more companions than names.
    """
    peers = list(dict.fromkeys(peer for chain in chains for peer in chain.peers))
    if len(peers) > len(wording.peers):
        raise UserError(
            f"{len(peers)} companions, but the wording has {len(wording.peers)} names: sample fewer chains"
        )
    return dict(zip(peers, wording.peers, strict=False))


def chain_facts(chain: Chain, catalog: Catalog, wording: Wording, names: dict[int, str]) -> dict[str, str]:
    """The template fields of a chain except its links. `names` is the result of `peer_names`."""
    facts = {name: wording.rating(getattr(chain, name)) for name in ("r00", "r10", "r11", "r01")}
    for name, item in (("i0", chain.i0), ("i1", chain.i1), ("last", chain.items[-1])):
        facts[name] = wording.title(catalog, item)
        facts[f"{name}_genres"] = wording.genre_note(catalog, item)
    about = wording.traits(catalog.demographics[chain.peer], wording.peer_about)
    return facts | {"peer": names[chain.peer], "peer_about": about, "last_peer": names[chain.peers[-1]]}


def link_facts(
    chain: Chain, catalog: Catalog, wording: Wording, names: dict[int, str]
) -> list[dict[str, str]]:
    """The template fields of each companion after the first."""
    return [
        {
            "peer": names[link.peer],
            "peer_about": wording.traits(catalog.demographics[link.peer], wording.peer_about),
            "rating": wording.rating(link.rating),
            "item": wording.title(catalog, link.item),
            "item_genres": wording.genre_note(catalog, link.item),
            "next_rating": wording.rating(link.next_rating),
        }
        for link in chain.more
    ]


def item_text(
    template: str, item: int, *, catalog: Catalog, wording: Wording, item_tokens: bool = False, **facts
) -> str:
    """Fills `template` with the item's {title} and {genres}, and with `facts`."""
    title, genres = wording.title(catalog, item), wording.genre_note(catalog, item)
    if item_tokens:
        title += item_token(item)
    return template.format(title=title, genres=genres, **facts)
