"""Pretraining documents, read back with regular expressions and held against the log."""

import re
from collections import Counter

import numpy as np
import pytest

from r2rec_jax.prompts.corpus import NAMES, Document

TITLE = r"[A-Z][a-z]+"
LIST = rf"{TITLE}(?:, {TITLE})*"
ORDER = rf"{TITLE}(?: > {TITLE})*"
NAME = "|".join(NAMES)

CHOICES = (  # of context + text
    rf"(?:{NAME}) enjoyed (?P<likes>{LIST})\. Options: (?P<among>{LIST})\. "
    rf"Order: (?P<order>{ORDER})\.",
    rf"Favourites: (?P<likes>{LIST})\. Choose from (?P<among>{LIST})\. "
    rf"That is (?P<taste>\w+)\. Order: (?P<order>{ORDER})\.",
    rf"For (?:{NAME}), fond of (?P<likes>{LIST}), "
    rf"out of (?P<among>{LIST}) take (?P<order>{ORDER})\.",
    rf"Shelf: (?P<among>{LIST})\. (?:{NAME}) enjoyed (?P<likes>{LIST}), "
    rf"so (?P<taste>\w+): (?P<order>{ORDER})\.",
)
FILTERS = (
    rf"Shelf: (?P<among>{LIST})\. Each (?P<genre>\w+) here: (?P<order>{ORDER})\.",
    rf"Among (?P<among>{LIST}), the genre (?P<genre>\w+) has (?P<order>{ORDER})\.",
    rf"Options: (?P<among>{LIST})\. Wanted: (?P<genre>\w+)\. Order: (?P<order>{ORDER})\.",
)
REPEATS = (
    rf"List: (?P<once>{LIST})\. Again: (?P<again>{LIST})\.",
    rf"Options: (?P<once>{LIST})\. Repeat: (?P<again>{LIST})\.",
)
FACTS = (
    rf"The (?P<genre>\w+) (?P<title>{TITLE}) came out in (?P<year>\d+)\.",
    rf"From (?P<year>\d+): (?P<title>{TITLE}), genre (?P<genre>\w+)\.",
    rf"What is (?P<title>{TITLE})\? A (?P<genre>\w+)\.",
    rf"Genre of (?P<title>{TITLE}): (?P<genre>\w+)\.",
)
HISTORIES = (
    rf"(?:{NAME}) enjoyed (?P<likes>{LIST})\.",
    rf"Favourites of (?:{NAME}): (?P<likes>{LIST})\.",
    rf"(?:{NAME}) says: more like (?P<few>{TITLE}(?: and {TITLE})*)\. "
    rf"What about (?P<last>{TITLE})\?",
)
QUESTION = (
    rf"(?P<name>{NAME}) is (?P<about>[^\n]+)\.\nFavourites: (?P<likes>{LIST})\.\n"
    rf"(?P<ties>(?:.+\n)*)Options: (?P<among>{LIST})\.\nOrder the best (?P<count>\d)\."
)
TIES = (
    rf"(?P<name>{NAME}) (?P<r00>\d) (?P<i0>{TITLE}) (?P<r10>\d) (?P<friend>{NAME}) "
    rf"(?P<r11>\d) (?P<i1>{TITLE}) (?P<r01>\d) (?P=name)",
    rf"(?P<name>{NAME}) and (?P<friend>{NAME}): "
    rf"(?P<i0>{TITLE}) (?P<r00>\d) (?P<r10>\d), (?P<i1>{TITLE}) (?P<r01>\d) (?P<r11>\d)",
)


@pytest.fixture(scope="module")
def documents(corpus) -> list[Document]:
    rng = np.random.default_rng(1)
    return [corpus.document(rng, 12) for _ in range(600)]


@pytest.fixture(scope="module")
def log(corpus_data) -> dict:
    """What the documents may draw on, read from the log row by row."""
    table, catalog = corpus_data.interactions, corpus_data.catalog
    columns = (table.user.tolist(), table.item.tolist(), table.rating.tolist())
    rows = [(user, catalog.title[item], rating) for user, item, rating in zip(*columns, strict=True)]
    liked = [[title for u, title, rating in rows if u == user and rating > 3] for user in range(300)]
    return {
        "rated": {(user, title): rating for user, title, rating in rows},
        "popularity": Counter(title for _, title, _ in rows),
        "genre": dict(zip(catalog.title, (g for (g,) in catalog.genres), strict=True)),
        "year": dict(zip(catalog.title, catalog.year.tolist(), strict=True)),
        "liked": liked,  # by user, in time order
    }


def matches(patterns, documents) -> list[dict[str, str]]:
    """The fields of every document that is wholly of one of the forms; each form must occur."""
    texts = [d.context + d.text for d in documents if d.reasoning is None]
    found = [[m.groupdict() for t in texts if (m := re.fullmatch(p, t))] for p in patterns]
    assert all(found), "a form never occurs"
    return [fields for form in found for fields in form]


def check_choice(fields: dict, log) -> None:
    """The module's rule, from the text: most favourites of its genre first, then popularity."""
    likes, among = fields["likes"].split(", "), fields["among"].split(", ")
    order = fields["order"].split(" > ")
    shown = Counter(log["genre"][title] for title in likes)
    keys = {title: (shown[log["genre"][title]], log["popularity"][title]) for title in among}
    assert [keys[title] for title in order] == sorted(keys.values(), reverse=True)[:3]
    assert len(set(order)) == len(order)
    if fields.get("taste"):
        assert shown[fields["taste"]] == max(shown.values())
    # The favourites are five in a row of one user's, and the next of them is among the options.
    places = [(liked, liked.index(likes[0])) for liked in log["liked"] if likes[0] in liked]
    runs = [liked[k : k + 6] for liked, k in places if liked[k : k + 5] == likes]
    assert any(run[5:] and run[5] in among and not {*run[:5]} & {*among} for run in runs)


def test_every_document_is_of_a_known_form(documents):
    single = [re.compile(p) for p in (*CHOICES, *FILTERS, *REPEATS, *HISTORIES)]
    anonymous = [re.sub(r"\?P<\w+>", "?:", fact) for fact in FACTS]
    facts = re.compile(" ".join([f"(?:{'|'.join(anonymous)})"] * 3))
    for document in documents:
        text = document.context + document.text
        if document.reasoning is None:
            assert facts.fullmatch(text) or any(p.fullmatch(text) for p in single), text
        else:
            assert re.fullmatch(QUESTION, document.context), text


def test_documents_depend_on_the_generator_alone(corpus, documents):
    rng = np.random.default_rng(1)
    assert [corpus.document(rng, 12) for _ in range(50)] == documents[:50]
    other = np.random.default_rng(2)
    assert [corpus.document(other, 12) for _ in range(50)] != documents[:50]


def test_choices_follow_the_rule(documents, log):
    for fields in matches(CHOICES, documents):
        check_choice(fields, log)


def test_filters_hold_the_most_popular_of_the_genre(documents, log):
    for fields in matches(FILTERS, documents):
        fitting = [t for t in fields["among"].split(", ") if log["genre"][t] == fields["genre"]]
        popularity = sorted((log["popularity"][title] for title in fitting), reverse=True)[:3]
        order = fields["order"].split(" > ")
        assert set(order) <= set(fitting)
        assert [log["popularity"][title] for title in order] == popularity


def test_repeats_repeat_and_their_random_list_carries_no_loss(documents):
    for fields in matches(REPEATS, documents):
        assert fields["once"] == fields["again"]
    for document in documents:
        if "Again:" in document.context or "Repeat:" in document.context:
            assert re.fullmatch(rf" {LIST}\.", document.text)


def test_histories_are_likes_of_one_user(documents, log):
    for fields in matches(HISTORIES, documents):
        told = fields.get("likes") or fields["few"].replace(" and ", ", ") + ", " + fields["last"]
        assert any({*told.split(", ")} <= {*liked[-10:]} for liked in log["liked"])


def test_facts_are_those_of_the_catalogue(documents, log):
    texts = " ".join(d.text for d in documents if not d.context and d.reasoning is None)
    for pattern in FACTS:
        found = [m.groupdict() for m in re.finditer(pattern, texts)]
        assert found
        for fact in found:
            assert fact["genre"] == log["genre"][fact["title"]]
            assert int(fact.get("year") or log["year"][fact["title"]]) == log["year"][fact["title"]]


def test_conversations_reason_from_their_ties_and_rank_by_the_rule(documents, log):
    talks = [d for d in documents if d.reasoning is not None]
    assert len(talks) > 50
    steps_seen, forms = set(), set()
    for talk in talks:
        fields = re.fullmatch(QUESTION, talk.context).groupdict()
        fields["order"] = re.fullmatch(rf"Order: ({ORDER})", talk.text)[1]
        *steps, last = talk.reasoning.split("\n")
        favourite, fields["taste"] = re.fullmatch(
            rf"({TITLE}) is a favourite, and the favourites are mostly (\w+)\.", last
        ).groups()
        check_choice(fields, log)
        assert favourite in fields["likes"].split(", ")
        assert int(fields["count"]) == min(3, fields["among"].count(",") + 1)
        ties = []
        for line in fields["ties"].splitlines():
            form, tie = next((k, m) for k, p in enumerate(TIES) if (m := re.fullmatch(p, line)))
            forms.add(form)
            ties.append(tie.groupdict())
        assert ties and all(tie["name"] == fields["name"] != tie["friend"] for tie in ties)
        steps_seen.add(len(steps))
        assert any(steps == told_of(tie, log)[: len(steps)] for tie in ties)
    assert steps_seen == {1, 2, 3} and forms == {0, 1}


def told_of(tie: dict, log) -> list[str]:
    name, friend = tie["name"], tie["friend"]
    return [
        f"{name} gave {tie['i0']} a {tie['r00']}.",
        f"{friend} gave it a {tie['r10']}.",
        f"{friend} gave {tie['i1']} a {tie['r11']}, a {log['genre'][tie['i1']]}.",
    ]


def test_ties_are_chains_of_the_log(documents, log):
    """Names are made up, so a tie is known by its ratings: someone must hold each pair of them."""
    lines = [line for d in documents if d.reasoning for line in d.context.splitlines()]
    ties = [m.groupdict() for line in lines for p in TIES if (m := re.fullmatch(p, line))]
    for tie in ties[:100]:
        for first, second in (("r00", "r01"), ("r10", "r11")):
            pair = (float(tie[first]), float(tie[second]))
            held = ((log["rated"].get((u, tie["i0"])), log["rated"].get((u, tie["i1"]))) for u in range(300))
            assert pair in held


def test_options_are_distinct_and_as_many_as_asked(corpus):
    rng = np.random.default_rng(3)
    for most in (2, 5, 20):
        counts = set()
        for _ in range(300):
            document = corpus.document(rng, most)
            text = document.context + document.text
            listed = re.search(rf"(?:Options|List|Shelf): ({LIST})\.", text)
            if listed:
                among = listed[1].split(", ")
                assert len(set(among)) == len(among)
                counts.add(len(among))
        assert min(counts) == 2 and max(counts) <= most
        assert most != 5 or counts == {2, 3, 4, 5}


def test_pretraining_never_sees_the_prompts_sentences(documents):
    told = "\n".join("\n".join((d.context, d.text, d.reasoning or "")) for d in documents)
    for phrase in ("Rank the best", "Rating:", "is fond of"):
        assert phrase not in told


def test_a_reader_is_described_by_all_that_is_known(corpus):
    people = {"; ".join(person.values()) for person in corpus.demographics}
    rng = np.random.default_rng(4)
    talks = [d for d in (corpus.document(rng, 4) for _ in range(200)) if d.reasoning]
    assert all(re.match(QUESTION, d.context)["about"] in people for d in talks)
