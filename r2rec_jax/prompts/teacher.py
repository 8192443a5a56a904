"""The template teacher: deterministic traces that tell only what the record and the catalogue hold.

The answer steers a trace without appearing in it: of the facts that may be
told, those are told that speak for it. A trace is progressive: hop by hop along one chain, and no
statement uses what comes after its hop.
"""

from collections import Counter

from r2rec_jax.chains.sampler import Chain
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.answer import ORDER, RATING
from r2rec_jax.prompts.ranking import RankingRecord, chain_facts, peer_names
from r2rec_jax.prompts.rating import hidden_facts
from r2rec_jax.prompts.wording import Wording, clean

LIKED = 4.0  # from this rating on, a hop speaks for its item


def ranking_trace(
    record: RankingRecord, catalog: Catalog, wording: Wording, places: int, answer: str
) -> tuple[str, str]:
    """(reasoning, answer text) for a ranking prompt.

    The reasoning has three to five statements, one a line: two to four hops along the chain that
    speaks most for the truth (likes where there is no chain), then the taste they show. The answer
    has the truth first, then the candidates that share most genres with the likes, popular ones first.
    """
    # Varied, so that the policy learns no fixed length; by user alone, so that it tells nothing.
    count = 2 + record.user % 3
    hops = _chain_hops if record.chains else _like_hops
    steps = hops(record, catalog, wording, count)
    steps.append(_taste(record, catalog, wording))
    return "\n".join(steps), _ranking(record, catalog, wording, places, answer)


def rating_trace(chain: Chain, catalog: Catalog, wording: Wording) -> tuple[str, str]:
    """(reasoning, answer text) for a rating prompt: three hops and what to expect of the fourth."""
    facts = hidden_facts(chain, catalog, wording)
    apart = abs(chain.r10 - chain.r00)
    agreement = wording.agreement[0 if apart == 0 else 1 if apart <= 1 else 2]
    higher = (chain.r01 > chain.r11) - (chain.r01 < chain.r11)
    steps = [*wording.rating_hops, wording.expectation[1 + higher]]
    reasoning = "\n".join(step.format(agreement=agreement, **facts) for step in steps)
    return reasoning, f"{RATING} {chain.r01:g}"


def _chain_hops(record, catalog: Catalog, wording: Wording, count: int) -> list[str]:
    chain = max(record.chains, key=lambda chain: _support(chain, record.truth, catalog))
    name = peer_names(record.chains, wording)[chain.peer]
    facts = chain_facts(chain, catalog, wording, name)
    return [_sentence(hop.format(**facts)) for hop in wording.hops[:count]]


def _support(chain: Chain, truth: int, catalog: Catalog) -> tuple[bool, float]:
    """Whether the user liked an item of the chain that shares a genre with the truth; how high
    the chain is rated altogether."""
    own = ((chain.i0, chain.r00), (chain.i1, chain.r01))
    wanted = set(catalog.genres[truth])
    fits = any(rating >= LIKED and wanted & set(catalog.genres[item]) for item, rating in own)
    return fits, chain.r00 + chain.r10 + chain.r11 + chain.r01


def _like_hops(record, catalog: Catalog, wording: Wording, count: int) -> list[str]:
    return [
        wording.like_hop.format(title=wording.title(catalog, item), genres=wording.genre_note(catalog, item))
        for item in record.likes[::-1][:count]
    ]


def _taste(record: RankingRecord, catalog: Catalog, wording: Wording) -> str:
    """The genre that most likes have; among the truth's genres if the likes have one of them."""
    carried = Counter(genre for item in record.likes for genre in catalog.genres[item])
    if not carried:
        return wording.taste_unknown
    fitting = [genre for genre in carried if genre in catalog.genres[record.truth]]
    genre = max(fitting or carried, key=carried.get)
    likes = [
        wording.taste_like.format(title=wording.title(catalog, item), genre=clean(genre))
        for item in record.likes
        if genre in catalog.genres[item]
    ]
    return wording.taste.format(likes=wording.listed(likes), genre=clean(genre))


def _ranking(record, catalog: Catalog, wording: Wording, places: int, answer: str) -> str:
    carried = Counter(genre for item in record.likes for genre in catalog.genres[item])
    items = record.candidates.tolist()

    def order(index: int) -> tuple[bool, int, int]:
        shared = sum(carried[genre] for genre in catalog.genres[items[index]])
        return items[index] != record.truth, -shared, -int(record.popularity[index])

    best = sorted(range(len(items)), key=order)[:places]
    if answer == "numbers":
        named = [str(index + 1) for index in best]
    else:
        named = [wording.title(catalog, items[index]) for index in best]
    return f"{ORDER} {' > '.join(named)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
