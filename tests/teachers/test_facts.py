"""The checker against the template teacher's traces, all true, with one fact at a time made false."""

import collections
import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.prompts.ranking_prompt import make_record, peer_names
from r2rec_jax.prompts.wording import WORDINGS, wording
from r2rec_jax.teachers.facts import KINDS, FactChecker
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.template import ranking_trace
from tests.teachers.test_validator import FILMS, MOVIES, RECORD

HEAT = "The viewer gave Heat (1995) [Action] a 4."


@pytest.fixture(scope="module")
def queries(dataset, graph, records) -> list:
    """Those of `records`, and some with chains of two companions and items told with ratings."""
    users = dataset.split.users["evaluation"]
    longer = {"chains": 3, "likes": 4, "history": 3, "length": 2}
    return [*records, *(make_record(dataset, graph, int(u), seed=1, **longer) for u in users)]


def asked(record) -> Question:
    return Question("ranking", "", record, None, 0, 0)


@pytest.mark.parametrize("name", WORDINGS)
def test_what_the_template_states_is_supported(name, queries, dataset):
    words, seen = wording(name), collections.Counter()
    checker = FactChecker(dataset.catalog, words)
    guides = [re.escape(guide.split("{peer}")[0]) for guide in words.guide if guide]
    for record in queries:
        trace, _ = ranking_trace(record, dataset.catalog, words, 3, "titles")
        found = checker.check(asked(record), trace)
        assert [one.text for one in found] == trace.split("\n")
        for one in found:
            # A conclusion about a companion is no fact, all else is.
            concludes = any(re.match(guide, one.text) for guide in guides)
            assert one.verdict == ("unchecked" if concludes else "supported"), one
            seen.update(fact.kind for fact in one.facts)
    told = set(KINDS) - (set() if words.genres or not words.recap else {"genre"})
    assert set(seen) == told and min(seen.values()) > 100


def test_a_recap_made_false_is_caught(queries, dataset):
    """A candidate told as seen, and each companion told of what only another one rated."""
    words, catalog = wording("mini"), dataset.catalog
    checker, caught = FactChecker(catalog, words), collections.Counter()

    def wrong(record, lines) -> bool:
        one = checker.check(asked(record), "\n".join(lines))[-1]
        return "who" in {fact.kind for fact in one.facts if not fact.supported}

    for record in queries:
        *before, recap = ranking_trace(record, catalog, words, 3, "titles")[0].split("\n")
        candidate = words.title(catalog, int(record.candidates[0]))
        for title in re.findall(r" (\w+ \(\d{4}\))", recap):
            assert wrong(record, [*before, recap.replace(title, candidate)])
            caught["candidate"] += 1
        names = peer_names(record.chains, words)
        rated = {
            name: {item for chain in record.chains for who, item, _ in chain.edges if who == peer}
            for peer, name in names.items()
        }
        for one, other in itertools.permutations(rated, 2):
            told = re.search(f" with {one}((?: \\w+ \\(\\d{{4}}\\))+)", recap)
            items = {k for k in rated[one] if words.title(catalog, k) in told[1]} if told else set()
            if items - rated[other]:
                assert wrong(record, [*before, recap.replace(told[0], f" with {other}{told[1]}")])
                caught["companion"] += 1
    assert min(caught["candidate"], caught["companion"]) > 100


@pytest.mark.parametrize("name", ["movies", "compact"])
def test_every_fact_made_false_is_caught(name, queries, dataset):
    """Of each trace each rating, title, genre and companion in turn, all other lines as they were."""
    words, catalog = wording(name), dataset.catalog
    checker, caught = FactChecker(catalog, words), collections.Counter()
    for record in queries[::2]:
        lines = ranking_trace(record, catalog, words, 3, "titles")[0].split("\n")
        for k, line in enumerate(lines):
            for kind, changed in falsified(line, lines[:k], record, catalog, words):
                *before, one = checker.check(asked(record), "\n".join([*lines[:k], changed]))
                assert all(fact.supported for other in before for fact in other.facts)
                assert one.verdict == "unsupported", (changed, kind)
                assert kind in {fact.kind for fact in one.facts if not fact.supported}, (changed, one)
                caught[kind] += 1
    assert min(caught[kind] for kind in KINDS) > 75, caught


def falsified(line, before, record, catalog, words):
    """(the kind that is false, the line) with one fact changed, by a reader of its own: the line's words."""
    told, titles = edges(record, catalog, words), [words.title(catalog, i) for i in range(64)]
    shown = [*record.likes, *(i for c in record.chains for i in c.items), *(i for i, _ in record.history)]
    candidates = record.candidates.tolist()
    unshown = next(i for i in range(64) if i not in shown and i not in candidates)
    rated = re.search(r"\ba (\d)\b", line)
    for title in titles:
        if title in line:
            yield "title", line.replace(title, titles[unshown])
            yield "who", line.replace(title, titles[candidates[0]])
    if rated:
        for rating in set("12345") - {rated[1]}:
            yield "rating", line[: rated.start(1)] + rating + line[rated.end(1) :]
    genres = sorted({genre for genres in catalog.genres for genre in genres})
    for place in re.finditer(r"\b(" + "|".join(genres) + r")\b", line):
        other = genres[(genres.index(place[0]) + 1) % len(genres)]
        yield "genre", line[: place.start()] + other + line[place.end() :]
    person = next((name for name in words.peers if re.search(rf"\b{name}\b", line)), None)
    names = {name for name, *_ in told} - {None}
    if person and rated:
        item = next(t for text in (line, *before[::-1]) for t in titles if t in text)
        for other in words.peers[: len(names) + 1]:
            ratings = [rating for name, title, rating in told if (name, title) == (other, item)]
            if float(rated[1]) not in ratings:
                yield ("rating" if ratings else "who"), line.replace(person, other)


def edges(record, catalog, words) -> list[tuple]:
    """(who, title, rating) of every hop, companions named in order of appearance."""
    names, found = {}, []
    for chain in record.chains:
        hops = [(chain.peer, chain.i0, chain.r10), (chain.peer, chain.i1, chain.r11)]
        item = chain.i1
        for link in chain.more:
            hops += [(link.peer, item, link.rating), (link.peer, link.item, link.next_rating)]
            item = link.item
        for peer, item, rating in hops:
            names.setdefault(peer, words.peers[len(names)])
            found.append((names[peer], words.title(catalog, item), rating))
    return found


@pytest.mark.parametrize(
    ("line", "verdict", "wrong"),
    [
        ("Person A, aged 5-9, rated it 5 out of 5, so the two nearly agree.", "supported", ""),
        ("Person A gave it a four.", "unsupported", "rating"),
        ("Person B gave it a 5.", "unsupported", "who"),
        ("The viewer gave Heat (1994) a 4.", "unsupported", "title"),
        ("The viewer gave Heat [Comedy] a 4.", "unsupported", "genre"),
        ("The viewer gave Alien a 4.", "unsupported", "who"),  # a candidate
        ("The viewer liked Heat.", "supported", ""),
        ("The viewer liked The Big Chill.", "unsupported", "who"),  # a 3
        ("The viewer gave Aliens a 5.", "unsupported", "rating"),  # a like, its rating untold
        ("Of the films liked most recently, Comedy is found in Aliens.", "unsupported", "genre"),
        (
            "Of the films liked most recently, Sci-Fi is found in Aliens and Fargo.",
            "unsupported",
            "who genre",
        ),
        # What cannot be bound, or may be about something unknown, is not guessed at.
        ("The viewer gave Stalker a 4.", "unchecked", ""),
        ("However, the mood was dark.", "unchecked", ""),
        ("What is closest to the films liked most recently should fit best.", "unchecked", ""),
        ("Heat got a 4 from the viewer and a 2 from Person A.", "supported", ""),  # its title is
    ],
)
def test_statements_in_other_words(line, verdict, wrong):
    *_, one = FactChecker(FILMS, MOVIES).check(asked(RECORD), f"{HEAT}\n{line}")
    assert one.verdict == verdict
    assert {fact.kind for fact in one.facts if not fact.supported} == set(wrong.split())


def test_it_is_the_item_named_before_and_nothing_where_that_is_unknown():
    def verdict(*lines):
        return FactChecker(FILMS, MOVIES).check(asked(RECORD), "\n".join(lines))[-1].verdict

    assert verdict(HEAT, "Person A gave it a 5.") == "supported"
    assert verdict("Person A also gave The Big Chill a 2.", "Person A gave it a 5.") == "unsupported"
    assert verdict("Person A gave it a 5.") == "unchecked"
    assert verdict(HEAT, "The viewer liked Aliens and Big.", "Person A gave it a 5.") == "unchecked"
    assert verdict("The viewer gave Shrek and Heat a 4.", "Person A gave it a 5.") == "unchecked"


def test_a_title_of_the_catalogue_that_the_prompt_does_not_show():
    record = dataclasses.replace(RECORD, candidates=np.array([6, 4, 7], np.int32))
    (one, then) = FactChecker(FILMS, MOVIES).check(
        asked(record), "The viewer gave Fargo a 4.\nPerson A gave it a 5."
    )
    assert [(fact.kind, fact.supported) for fact in one.facts] == [("title", False)]
    assert [(fact.kind, fact.supported) for fact in then.facts] == [("who", False)]


def test_a_rating_of_the_history_counts_only_where_the_prompt_tells_it():
    record = dataclasses.replace(RECORD, likes=[], history=[(4, 5.0), (5, 2.0)])
    told = {
        name: FactChecker(FILMS, wording(name)).check(asked(record), line)[0].facts
        for name, line in (("movies", "The viewer gave Aliens a 2."), ("mini", "Kai gave Aliens (1986) a 2."))
    }
    for name, known in (("movies", True), ("mini", False)):
        assert [(fact.kind, fact.supported) for fact in told[name]] == [
            ("title", True),
            ("who", True),
            ("rating", known),
        ]


def test_an_empty_reasoning_states_nothing():
    assert FactChecker(FILMS, MOVIES).check(asked(RECORD), "") == []


@given(
    st.lists(st.sampled_from([*"\nAa4 .,()[]?*\x00", *FILMS.title, "Person A", "gave", "(1995)", "Sci-Fi"]))
)
def test_any_text_gets_a_verdict_a_line(pieces):
    found = FactChecker(FILMS, MOVIES).check(asked(RECORD), " ".join(pieces))
    assert all(one.text and one.verdict in ("supported", "unsupported", "unchecked") for one in found)
