"""The template teacher: deterministic traces that use only facts of the record and the catalogue.

The answer selects the facts that support it but does not appear in the reasoning. A trace is progressive:
it follows one chain hop by hop, and no statement uses a later hop.
"""

from collections import Counter

from r2rec_jax.chains.chain import Chain
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.answer_parser import ORDER, RATING
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import RankingRecord, chain_facts, link_facts, peer_names
from r2rec_jax.prompts.rating_prompt import hidden_facts
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.runtime.plain_text import clean
from r2rec_jax.teachers.recap import recap
from r2rec_jax.teachers.request import Receive, Reply, Request


class TemplateTeacher:
    """Answers every request from templates; `config` is the `prompt` section."""

    def __init__(self, catalog: Catalog, wording: Wording, config: PromptConfig):
        self.catalog, self.wording, self.config = catalog, wording, config

    def __call__(self, requests: list[Request], receive: Receive) -> None:
        c = self.config
        for request in requests:
            question = request.question
            if question.chain is None:
                trace = ranking_trace(
                    question.record, self.catalog, self.wording, c.places, c.answer, reasoning=c.reasoning
                )
            else:
                trace = rating_trace(question.chain, self.catalog, self.wording, reasoning=c.reasoning)
            receive(request, Reply("\n".join(filter(None, trace))))


def ranking_trace(
    record: RankingRecord,
    catalog: Catalog,
    wording: Wording,
    places: int,
    answer: str,
    *,
    reasoning: bool = True,
) -> tuple[str, str]:
    """(reasoning, answer text) for a ranking prompt.

    The reasoning has one statement per line: the hops of the chain that best supports the held-out item
    (likes if there is no chain), then the taste that follows. In a wording with a recap it follows the last
    chain and ends with the recap; neither depends on the held-out item. Without `reasoning` it is ''.

    The answer ranks the held-out item first, then the candidates that share most genres with the likes,
    popular ones first.
    """
    text = _ranking(record, catalog, wording, places, answer)
    return narration(record, catalog, wording) if reasoning else "", text


def narration(record: RankingRecord, catalog: Catalog, wording: Wording) -> str:
    """The reasoning of `ranking_trace`."""
    # The user alone decides, so that the number of statements does not depend on the answer.
    count = wording.hop_counts[record.user % len(wording.hop_counts)]
    hops = _chain_hops if record.chains else _like_hops
    conclude = recap if wording.recap else _taste
    return "\n".join([*hops(record, catalog, wording, count), conclude(record, catalog, wording)])


def rating_trace(
    chain: Chain, catalog: Catalog, wording: Wording, *, reasoning: bool = True
) -> tuple[str, str]:
    """(reasoning, answer text) for a rating prompt: all hops but the last, and the expected rating."""
    text = f"{RATING} {wording.rating(chain.r01)}"
    if not reasoning:
        return "", text
    facts = hidden_facts(chain, catalog, wording) | {"agreement": _agreement(chain, wording)}
    higher = _sign(chain.r01, chain.more[-1].next_rating if chain.more else chain.r11)
    again = higher == _sign(chain.r00, chain.r10)
    expectation = wording.expectation_again if again else wording.expectation
    steps = [step.format(**facts) for step in wording.rating_hops]
    steps += _link_hops(chain, catalog, wording, peer_names([chain], wording))
    return "\n".join([*steps, expectation[1 + higher].format(**facts)]), text


def _sign(a: float, b: float) -> int:
    return (a > b) - (a < b)


def _agreement(chain: Chain, wording: Wording) -> str:
    return wording.agreement[wording.distance(chain.r10, chain.r00)]


def _chain_hops(record: RankingRecord, catalog: Catalog, wording: Wording, count: int) -> list[str]:
    if wording.recap:
        chain = record.chains[-1]
    else:
        chain = max(record.chains, key=lambda chain: _support(chain, record.truth, catalog, wording))
    names = peer_names(record.chains, wording)
    facts = chain_facts(chain, catalog, wording, names) | {"agreement": _agreement(chain, wording)}
    steps = [hop.format(**facts) for hop in wording.hops[:count]]
    steps[3:3] = _link_hops(chain, catalog, wording, names) if count > 3 else []
    apart = wording.distance(chain.r10, chain.r00), wording.distance(chain.r11, chain.r01)
    guide = wording.guide[max(apart) == 2]
    if count == len(wording.hops) and guide and not chain.more:
        steps.append(guide.format(**facts))
    return [_sentence(step) for step in steps]


def _link_hops(chain: Chain, catalog: Catalog, wording: Wording, names: dict[int, str]) -> list[str]:
    links = link_facts(chain, catalog, wording, names)
    return [hop.format(**link) for link in links for hop in wording.link_hops]


def _own_ratings(chain: Chain) -> tuple[tuple[int, float], tuple[int, float]]:
    return (chain.i0, chain.r00), (chain.items[-1], chain.r01)


def _support(chain: Chain, truth: int, catalog: Catalog, wording: Wording) -> tuple[bool, float]:
    """Sort key: (the user liked an item of the chain in a genre of the held-out item, sum of all ratings)."""
    genres = set(catalog.genres[truth])
    own = [item for item, rating in _own_ratings(chain) if wording.is_like(rating)]
    fits = any(genres & set(catalog.genres[item]) for item in own)
    return fits, chain.r00 + chain.r10 + chain.r11 + chain.r01


def _like_hops(record: RankingRecord, catalog: Catalog, wording: Wording, count: int) -> list[str]:
    return [
        wording.like_hop.format(title=wording.title(catalog, item), genres=wording.genre_note(catalog, item))
        for item in record.likes[::-1][:count]
    ]


def _taste(record: RankingRecord, catalog: Catalog, wording: Wording) -> str:
    """A statement about the most frequent genre of the likes.

    Genres of the held-out item take precedence if a like has one. Otherwise, in wordings with `taste_chains`,
    they take precedence if an item of the chains that the user rated highly has one.
    """
    counts = _genre_counts(record.likes, catalog)
    if not counts:
        return wording.taste_unknown
    template, items, genres = wording.taste, record.likes, list(counts)
    fitting = set(catalog.genres[record.truth])
    if fitting & set(genres):
        genres = [genre for genre in genres if genre in fitting]
    elif wording.taste_chains:
        own = [pair for chain in record.chains for pair in _own_ratings(chain)]
        rated = list(dict.fromkeys(item for item, rating in own if wording.is_like(rating)))
        rated_counts = _genre_counts(rated, catalog)
        supporting = [genre for genre in rated_counts if genre in fitting]
        if supporting:
            template, items, genres, counts = wording.taste_chains, rated, supporting, rated_counts
        else:
            template = wording.taste_open
    genre = max(genres, key=counts.get)
    likes = [
        wording.taste_like.format(title=wording.title(catalog, item), genre=clean(genre))
        for item in items
        if genre in catalog.genres[item]
    ]
    return template.format(likes=wording.listed(likes), genre=clean(genre))


def _genre_counts(items: list[int], catalog: Catalog) -> Counter:
    """The number of `items` with each genre, in order of first appearance."""
    return Counter(genre for item in items for genre in catalog.genres[item])


def _ranking(record: RankingRecord, catalog: Catalog, wording: Wording, places: int, answer: str) -> str:
    counts = _genre_counts(record.likes, catalog)
    items = record.candidates.tolist()

    def order(index: int) -> tuple[bool, int, int]:
        shared = sum(counts[genre] for genre in catalog.genres[items[index]])
        return items[index] != record.truth, -shared, -int(record.popularity[index])

    best = sorted(range(len(items)), key=order)[:places]
    if answer == "numbers":
        names = [str(index + 1) for index in best]
    else:
        names = [wording.title(catalog, items[index]) for index in best]
    return f"{ORDER} {' > '.join(names)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
