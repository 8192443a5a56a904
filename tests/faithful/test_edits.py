"""Edited prompts word by word against the prompts they were made of."""

import functools
import re
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.faithful.edits import EDITS, Editor
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.prompts.wording import wording, wording_of

SECTION = {"answer": "titles", "places": 1, "reasoning": True, "likes": 5, "history": 0, "chains": 5}
SECTION |= {"chain_selection": "uniform", "item_tokens": False, "buckets": (4096,)}
# Where a chain's line of the compact wording has what, from its end: ... r00 i0 r10 PEER r11 i1 r01 Kai.
PEER, THEIRS, ITEM, OWN = -5, -4, -3, -2


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Kai gave it a 4, so it fits."], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture(scope="module")
def make(dataset, graph, chat):
    """make(wording, length, ...) -> the users' edited prompts, made once."""

    @functools.cache
    def make(wording="compact", length=1, seed=0, count=45, **changes) -> list:
        section = ConfigDict(SECTION | {"wording": wording, "chain_length": length} | changes)
        users = np.concatenate([dataset.split.users[name] for name in ("evaluation", "sft")])[:count]
        prompts = RankingPrompts(dataset, users, chat, section, 3)
        edit = Editor(dataset.catalog, graph, wording_of(wording, dataset), chat, section)
        return [edit(prompts[k], seed) for k in range(len(users))]

    return make


@pytest.fixture(scope="module", params=[1, 2], ids=["one companion", "two companions"])
def edited(request, make) -> list:
    found = make(length=request.param)
    counts = Counter(name for one in found for name in one.prompts)
    assert set(counts) == set(EDITS) and min(counts.values()) > 8, counts
    assert any(not one.prompts for one in found)  # not every user has a chain that speaks for something
    return [one for one in found if one.prompts]


def changed(one, name) -> list[tuple[list[str], list[str]]]:
    """The lines that differ, as words; the edited prompt has as many lines."""
    pairs = zip(one.prompt.text.split("\n"), one.prompts[name].text.split("\n"), strict=True)
    return [(a.split(), b.split()) for a, b in pairs if a != b]


def missing(one, name) -> list[str]:
    """The words of the one line that the edited prompt lacks; all else is as it was."""
    before, after = (prompt.text.split("\n") for prompt in (one.prompt, one.prompts[name]))
    gone = next(k for k in range(len(before)) if before[:k] + before[k + 1 :] == after)
    return before[gone].split()


def genre(dataset, title) -> str:
    return dataset.catalog.genres[dataset.catalog.title.index(title)][0]


def test_the_chain_that_is_cut_speaks_for_candidates_alike(edited, dataset):
    for one in edited:
        line = missing(one, "cut")
        assert line[0] == line[-1] == "Kai" and float(line[THEIRS]) >= 4 and float(line[OWN]) >= 4
        alike = [genre(dataset, title) == genre(dataset, line[ITEM]) for title in one.prompt.titles]
        assert one.alike["genre"].tolist() == alike and 0 < sum(alike) < len(alike)


def test_the_chain_cut_elsewhere_says_nothing_of_them(edited, dataset):
    for one in edited:
        if "cut_elsewhere" in one.prompts:
            kind = genre(dataset, missing(one, "cut")[ITEM])
            other = missing(one, "cut_elsewhere")
            titles = [word for word in other if word in dataset.catalog.title]
            assert len(titles) >= 2 and kind not in {genre(dataset, title) for title in titles}


def test_a_swap_changes_one_title_and_a_flip_one_rating(edited, dataset):
    for one in edited:
        target = missing(one, "cut")
        for name, place in (
            ("swapped", ITEM),
            ("swapped_alike", ITEM),
            ("flipped", THEIRS),
            ("own_flipped", OWN),
        ):
            if name not in one.prompts:
                continue
            ((before, after),) = changed(one, name)
            assert before == target
            (k,) = [k for k in range(len(before)) if before[k] != after[k]]
            assert k - len(before) == place and len(before) == len(after)
            if place == ITEM:
                assert after[k] not in re.findall(r"\w+", one.prompt.text)
                same = genre(dataset, after[k]) == genre(dataset, before[k])
                assert same == (name == "swapped_alike")
            else:
                assert float(before[k]) + float(after[k]) == 6


def test_a_flip_elsewhere_is_of_the_other_chain(edited):
    for one in edited:
        for name, place in (("flipped_elsewhere", THEIRS), ("own_flipped_elsewhere", OWN)):
            if name in one.prompts:
                ((before, after),) = changed(one, name)
                assert before == missing(one, "cut_elsewhere")
                assert [k - len(before) for k in range(len(before)) if before[k] != after[k]] == [place]
                assert float(before[place]) + float(after[place]) == 6 != 2 * float(before[place])


def test_neutral_edits_say_the_same(edited):
    for one in edited:
        before, after = one.prompt.text.split("\n"), one.prompts["reordered"].text.split("\n")
        assert before != after and sorted(before) == sorted(after)
        old = missing(one, "cut")[PEER]
        differing = {
            pair for a, b in changed(one, "renamed") for pair in zip(a, b, strict=True) if len(set(pair)) > 1
        }
        ((name, new),) = differing
        assert name == old and new in wording("compact").peers and new not in one.prompt.text
        assert one.prompts["renamed"].text.replace(new, name) == one.prompt.text


def test_a_like_that_is_cut_is_gone_from_the_likes_alone(edited):
    for one in edited:
        ((before, after),) = changed(one, "like_cut")
        likes = before[4:]
        assert len(after) == len(before) - 1 and before[:4] == after[:4] == ["Kai", "is", "fond", "of"]
        assert {word.strip(",.") for word in after[4:]} < {word.strip(",.") for word in likes}


def test_long_wordings_keep_names_and_change_nothing_else(make):
    """But for the numbers of the chains after one that is cut."""
    seen = 0
    for one in make("movies", count=15):
        if not one.prompts:
            continue
        before = [re.sub(r"^\d+\. ", "", line) for line in one.prompt.text.split("\n")]
        after = [re.sub(r"^\d+\. ", "", line) for line in one.prompts["cut"].text.split("\n")]
        (gone,) = (Counter(before) - Counter(after)).elements()
        assert not Counter(after) - Counter(before) and gone.startswith("The viewer gave ")
        for name, words in (("flipped", 1), ("own_flipped", 1), ("renamed", 2)):
            pairs = [pair for a, b in changed(one, name) for pair in zip(a, b, strict=True)]
            assert sum(a != b for a, b in pairs) == words, name
        seen += 1
    assert seen > 8


def test_co_rated_candidates_are_those_with_the_same_raters(make, dataset):
    log, cutoff = dataset.interactions, dataset.split.cutoff
    rows = [k for k in range(len(log)) if k < cutoff[log.user[k]]]
    raters = {item: {int(log.user[k]) for k in rows if log.item[k] == item} for item in range(64)}
    for one in make()[::5]:
        if one.prompts:
            last = raters[dataset.catalog.title.index(missing(one, "cut")[ITEM])]
            theirs = [raters[int(item)] for item in one.prompt.record.candidates]
            cosine = np.array([len(last & users) / (len(last) * len(users)) ** 0.5 for users in theirs])
            alike = one.alike["co-rated"]
            assert (
                alike.sum() == 5 and cosine[alike].min() >= cosine[~alike].max() and cosine[alike].min() > 0
            )


def test_edits_depend_on_seed_and_user_alone(make):
    def texts(found):
        return [{name: prompt.text for name, prompt in one.prompts.items()} for one in found]

    first = texts(make()[:9])
    assert texts(make(count=9)) == first and texts(make(seed=1, count=9)) != first


def test_what_does_not_fit_is_no_edit(make):
    """A longer title may not push a chain out: that would be two edits at once."""
    whole = next(one for one in make() if "swapped" in one.prompts)
    width = len(whole.prompt.tokens)
    for one in make(buckets=(width,), count=15):
        for prompt in one.prompts.values():
            assert len(prompt.tokens) <= width
            lost = len(one.prompt.record.chains) - len(prompt.record.chains)
            assert lost == 0 or prompt in (one.prompts.get("cut"), one.prompts.get("cut_elsewhere"))
    lengths = {
        len(one.prompts["swapped"].tokens) - len(one.prompt.tokens)
        for one in make()
        if "swapped" in one.prompts
    }
    assert max(lengths) > 0  # some are longer, so the loop above left some out
