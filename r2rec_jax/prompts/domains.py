"""Prompt templates for films, books, products, games, music, and items of any kind.

A `Domain` defines the nouns and the verb. The templates below have a slot `<...>` for each of them and for
words that depend on the scale. `RATED` is for ratings on any scale ("gave Heat a 4"). `EVENTS` is for counts
("listened to Heat 12 times") and for interactions without ratings ("bought Heat"). tests/prompts/golden
contains complete prompts of every domain.
"""

import dataclasses
import re

from r2rec_jax.data.rating_scale import COUNTS, STARS, Scale
from r2rec_jax.prompts.config import ANSWERS


@dataclasses.dataclass(frozen=True)
class Domain:
    """person: noun for a user. item, items: noun for an item. do, did, done: verb for an interaction."""

    person: str
    item: str
    items: str
    do: str
    did: str
    done: str


DOMAINS = {
    "movies": Domain("viewer", "film", "films", "watch", "watched", "watched"),
    "books": Domain("reader", "book", "books", "read", "read", "read"),
    "products": Domain("customer", "product", "products", "buy", "bought", "bought"),
    "games": Domain("player", "game", "games", "play", "played", "played"),
    "music": Domain("listener", "track", "tracks", "listen to", "listened to", "listened to"),
    "items": Domain("user", "item", "items", "choose", "chose", "chosen"),
}

_COMMON = {
    "year": " ({year})",
    "genres": " [{genres}]",
    "trait": "{name} {value}",
    "trait_joiner": ", ",
    "listing": (", ", " and "),
    "peers": tuple(f"Person {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "about": "About the <person>: {traits}.\n\n",
    "like": "- {title}{genres}",
    "like_joiner": "\n",
    "peer_about": " ({traits})",
    "candidate": dict.fromkeys(ANSWERS, "{number}. {title}{genres}"),
    "candidate_joiner": "\n",
    "form": {
        "titles": (
            "Give the answer as a single line: <title and year of> {places} different candidates, the "
            "likeliest first, in this form:\n"
            "Order: <title (year)> of the likeliest > <title (year)> of the second > and so on"
        ),
        "numbers": (
            "Give the answer as a single line: the numbers of {places} different candidates, the "
            "likeliest first, in this form:\n"
            "Order: number of the likeliest > number of the second > and so on"
        ),
    },
    "form_one": {
        "titles": "Give the answer as a single line: <title and year>, in this form:\nOrder: <title (year)>",
        "numbers": "Give the answer as a single line: the candidate's number, in this form:\nOrder: number",
    },
    "no_reason": "Do not reason or explain.\n\n",
    "verdicts": ("No", "Yes"),
    "hop_counts": (4,),
    "taste_like": "{title}",
    "recap": "",
    "together": "",
}

RATED = _COMMON | {
    "likes": "<Items> the <person> liked most recently, oldest first:\n{likes}\n\n",
    "dislikes": ("<Items> the <person> rated most recently and did not like, oldest first:\n{likes}\n\n"),
    "rated": "- {title}{genres}: {rating}",
    "history": (
        "<Items> the <person> rated most recently, oldest first, with ratings from <least> (worst) to <most> "
        "(best):\n{history}\n\n"
    ),
    "chain": (
        "{number}. The <person> gave {i0}{i0_genres} <a> {r00}. {peer}{peer_about} gave the same <item> <a> "
        "{r10}. {peer} also gave {i1}{i1_genres} <a> {r11}. {links}The <person> gave that <item> <a> {r01}."
    ),
    "link": (
        "{peer}{peer_about} gave that <item> <a> {rating}. {peer} also gave {item}{item_genres} <a> "
        "{next_rating}. "
    ),
    "chains": (
        "Rating chains, with ratings from <least> (worst) to <most> (best). Each is a loop that starts and "
        "ends with the <person> and goes from one person to the next through <an item> that both have "
        "rated.\n{chains}\n\n"
    ),
    "candidates": (
        "Candidates, <items> the <person> has not rated yet, in no particular order:\n{candidates}\n\n"
    ),
    "request": (
        "Which <item> will the <person> like next? Rank the {places} likeliest of {count} candidates.\n\n"
    ),
    "request_one": "Which <item> will the <person> like next? Name the likeliest of {count} candidates.\n\n",
    "request_all": "Which <item> will the <person> like next? Rank all {count} candidates.\n\n",
    "reason": {
        "chains": (
            "First reason, one short statement a line. Follow at least one chain from its beginning, a "
            "statement for each rating: it builds on those before it and uses nothing from further along "
            "the chain. Then say what the chain and the liked <items> tell of the <person>'s taste. Name no "
            "candidate while you reason.\n\n"
        ),
        "likes": (
            "First reason, one short statement a line, each building only on those before it: go through "
            "the liked <items>, then say what they tell of the <person>'s taste. Name no candidate "
            "while you reason.\n\n"
        ),
        "neither": (
            "First reason, one short statement a line, each building only on those before it. Name no "
            "candidate while you reason.\n\n"
        ),
    },
    "question": (
        "A rating chain, with ratings from <least> (worst) to <most> (best). It is a loop that starts and "
        "ends with a <person> and goes from one person to the next through <an item> that both have "
        "rated.\n\n"
        "{about}"
        "- The <person> gave {i0}{i0_genres} <a> {r00}.\n"
        "- {peer}{peer_about} gave the same <item> <a> {r10}.\n"
        "- {peer} also gave {i1}{i1_genres} <a> {r11}.\n"
        "{links}"
        "- The <person> gave that <item> <a> ?\n\n"
        "Which rating did the <person> give {last}?\n\n"
    ),
    "question_link": (
        "- {peer}{peer_about} gave that <item> <a> {rating}.\n"
        "- {peer} also gave {item}{item_genres} <a> {next_rating}.\n"
    ),
    "question_reason": (
        "First reason, one short statement a line. Follow the chain from its beginning, a statement for "
        "each rating: it builds on those before it and uses nothing from further along the chain. Then "
        "say what to expect, without naming the rating while you reason.\n\n"
    ),
    "question_form": "Give the answer as a single line, in this form:\nRating: a number from <range>",
    "liking": "Will the <person> like {title}{genres}? Answer Yes or No, and nothing else.",
    "hops": (
        "The <person> gave {i0}{i0_genres} <a> {r00}.",
        "{peer} gave the same <item> <a> {r10}, so {agreement}.",
        "{peer} also gave {i1}{i1_genres} <a> {r11}.",
        "The <person> gave that <item> <a> {r01}.",
    ),
    "link_hops": (
        "{peer} gave that <item> <a> {rating}.",
        "{peer} also gave {item}{item_genres} <a> {next_rating}.",
    ),
    "guide": (
        "So what {peer} likes is a fair guide to what the <person> likes.",
        "So what {peer} likes is a poor guide to what the <person> likes.",
    ),
    "like_hop": "The <person> liked {title}{genres}.",
    "taste": "Of the <items> liked most recently, {genre} is found in {likes}, so {genre} should fit well.",
    "taste_chains": (
        "The <items> liked most recently are of other kinds, but among those of the chains the <person> also "
        "rated {likes} highly, so {genre} can fit well too."
    ),
    "taste_open": (
        "The <items> liked most recently are mostly {genre}, as in {likes}, yet nothing here ties the "
        "<person> to one kind, so another kind can fit too."
    ),
    "taste_unknown": "What is closest to the <items> liked most recently should fit best.",
    "rating_hops": (
        "The <person> gave {i0}{i0_genres} <a> {r00}.",
        "{peer} gave the same <item> <a> {r10}, so {agreement}.",
        "{peer} also gave {i1}{i1_genres} <a> {r11}.",
    ),
    "agreement": (
        "the two agree on it",
        "the two nearly agree on it",
        "the two differ clearly on it",
    ),
    "expectation": (
        "One <item> settles little, and the <person> may well like {last} less than {last_peer} did.",
        "One <item> settles little, and the <person> may well like {last} just as much as {last_peer} did.",
        "One <item> settles little, and the <person> may well like {last} more than {last_peer} did.",
    ),
    "expectation_again": (
        "The <person> was harder to please than {peer}, and so should like {last} less than {last_peer} did.",
        "The <person> saw the first <item> as {peer} did, and so should like {last} as much as {last_peer} "
        "did.",
        "The <person> was easier to please than {peer}, and so should like {last} more than {last_peer} did.",
    ),
}

# Without ratings there are no rating questions and no dislikes, so those templates are empty.
EVENTS = _COMMON | {
    "likes": "<Items> the <person> <did> most recently, oldest first:\n{likes}\n\n",
    "dislikes": "",
    "rated": "- {title}{genres}<: {rating}>",
    "history": "<Items> the <person> <did> most recently, oldest first:\n{history}\n\n",
    "chain": (
        "{number}. The <person> <did> {i0}{i0_genres}< {r00}>. {peer}{peer_about} <did> the same <item>"
        "< {r10}>. {peer} also <did> {i1}{i1_genres}< {r11}>. {links}The <person> <did> that <item>< {r01}>."
    ),
    "link": (
        "{peer}{peer_about} <did> that <item>< {rating}>. {peer} also <did> {item}{item_genres}"
        "< {next_rating}>. "
    ),
    "chains": (
        "Interaction chains. Each is a loop that starts and ends with the <person> and goes from one person "
        "to the next through <an item> that both have <done>.\n{chains}\n\n"
    ),
    "candidates": (
        "Candidates, <items> the <person> has not <done> yet, in no particular order:\n{candidates}\n\n"
    ),
    "request": (
        "Which <item> will the <person> <do> next? Rank the {places} likeliest of {count} candidates.\n\n"
    ),
    "request_one": "Which <item> will the <person> <do> next? Name the likeliest of {count} candidates.\n\n",
    "request_all": "Which <item> will the <person> <do> next? Rank all {count} candidates.\n\n",
    "reason": {
        "chains": (
            "First reason, one short statement a line. Follow at least one chain from its beginning, a "
            "statement for each step: it builds on those before it and uses nothing from further along "
            "the chain. Then say what the chain and the recent <items> tell of the <person>'s taste. Name no "
            "candidate while you reason.\n\n"
        ),
        "likes": (
            "First reason, one short statement a line, each building only on those before it: go through "
            "the recent <items>, then say what they tell of the <person>'s taste. Name no candidate "
            "while you reason.\n\n"
        ),
        "neither": RATED["reason"]["neither"],
    },
    "question": "",
    "question_link": "",
    "question_reason": "",
    "question_form": "",
    "liking": "",
    "hops": (
        "The <person> <did> {i0}{i0_genres}< {r00}>.",
        "{peer} <did> the same <item>< {r10}>.",
        "{peer} also <did> {i1}{i1_genres}< {r11}>.",
        "The <person> <did> that <item>< {r01}>.",
    ),
    "link_hops": (
        "{peer} <did> that <item>< {rating}>.",
        "{peer} also <did> {item}{item_genres}< {next_rating}>.",
    ),
    "guide": ("", ""),
    "like_hop": "The <person> <did> {title}{genres}.",
    "taste": "Of the most recent <items>, {genre} is found in {likes}, so {genre} should fit well.",
    "taste_chains": (
        "The most recent <items> are of other kinds, but among those of the chains {genre} is found in "
        "{likes}, so {genre} can fit well too."
    ),
    "taste_open": (
        "The most recent <items> are mostly {genre}, as in {likes}, yet nothing here ties the <person> to "
        "one kind, so another kind can fit too."
    ),
    "taste_unknown": "What is closest to the most recent <items> should fit best.",
    "rating_hops": (),
    "agreement": ("", "", ""),
    "expectation": ("", "", ""),
    "expectation_again": ("", "", ""),
}

_SLOT = re.compile(r"<([^<>]+)>")
_AMOUNT = re.compile(r"[ :]+\{\w+\}")  # the number of an event, shown for counts only


def domain_templates(domain: Domain, scale: Scale, *, dated: bool) -> dict:
    """The templates of a `Wording` by field name. `dated`: whether titles are followed by years."""
    steps = f" in steps of {scale.step:g}" if scale.step != 1 else ""
    words = dataclasses.asdict(domain) | {
        "Items": domain.items.capitalize(),
        "an item": f"an {domain.item}" if domain.item[0] in "aeiou" else f"a {domain.item}",
        "a": "a" if scale.most < 8 else "a rating of",  # since it is "an 8"
        "least": f"{scale.least:g}",
        "most": f"{scale.most:g}",
        "range": f"{scale.least:g} to {scale.most:g}{steps}",
        "title and year of": "title and year of" if dated else "the titles of",
        "title and year": "title and year" if dated else "title",
        "title (year)": "title (year)" if dated else "title",
    }

    def filled(value):
        if isinstance(value, str):
            return _SLOT.sub(word, value)
        if isinstance(value, dict):
            return {key: filled(text) for key, text in value.items()}
        return tuple(map(filled, value)) if value and isinstance(value[0], str) else value

    def word(slot: re.Match) -> str:
        if _AMOUNT.fullmatch(slot[1]):
            return slot[1] if scale.kind == COUNTS else ""
        return words[slot[1]]

    return {name: filled(value) for name, value in (RATED if scale.kind == STARS else EVENTS).items()}
