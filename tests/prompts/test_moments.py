"""Against the log itself: what a moment shows was there before it, and nothing of what came after."""

import numpy as np
import pytest

from configs.base import base, mini
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.prompts.moments import LEAST, Moments
from r2rec_jax.runtime.errors import UserError

OPTIONS = 6


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    log, catalog = generate(seed=2, users=80, items=60, ratings_per_user=20)
    return Dataset("d", log, catalog, split(log, seed=0, sizes={"evaluation": 20}))


@pytest.fixture(scope="module")
def moments(dataset) -> Moments:
    return Moments(dataset, build_graph(dataset), mini(base()).prompt)


@pytest.fixture(scope="module")
def records(moments):
    rng = np.random.default_rng(0)
    shown = {"options": OPTIONS, "history": 8, "likes": 5, "chains": 3}
    return [moments.record(moments.moment(rng), rng, **shown) for _ in range(400)]


@pytest.fixture(scope="module")
def pasts(dataset) -> list[dict[int, tuple[int, float]]]:
    """Of every user {item: (place in its history, rating)}, the truth and what follows left out."""
    log, found = dataset.interactions, [{} for _ in range(dataset.interactions.n_users)]
    for row, (user, item, rating) in enumerate(
        zip(log.user.tolist(), log.item.tolist(), log.rating.tolist(), strict=True)
    ):
        if row < dataset.split.cutoff[user]:
            found[user][item] = (len(found[user]), rating)
    return found


def test_all_that_a_record_shows_of_its_user_lies_before_its_moment(records, pasts, dataset):
    for record in records:
        past = pasts[record.user]
        now, rating = past[record.truth]  # a KeyError here would be a truth of the split
        assert rating > dataset.split.like_above and now >= LEAST
        shown = [item for item, _ in record.history] + record.likes
        shown += [item for chain in record.chains for item in (chain.i0, chain.i1)]
        assert all(past[item][0] < now for item in shown)


def test_the_history_and_the_likes_are_the_latest(records, pasts):
    for record in records:
        order = sorted(pasts[record.user].items(), key=lambda pair: pair[1][0])
        before = [
            (item, rating) for item, (place, rating) in order if place < pasts[record.user][record.truth][0]
        ]
        assert record.history == before[len(before) - len(record.history) :]
        assert record.likes == [item for item, rating in before if rating > 3][-5:]


def test_candidates_are_any_items_and_tell_nothing_of_the_truth(records, dataset, moments):
    """As often as any other item the truth is among them."""
    shown = np.concatenate([record.candidates for record in records])
    assert all(len(record.candidates) == OPTIONS for record in records)
    assert set(shown.tolist()) <= set(moments.known_items.tolist())
    assert np.bincount(shown, minlength=dataset.interactions.n_items).max() < 80  # of 2,400, 40 each
    found = np.mean([record.truth in record.candidates for record in records])
    assert found == pytest.approx(1 - (1 - 1 / len(moments.known_items)) ** OPTIONS, abs=0.045)


def test_chains_are_loops_of_the_log_through_the_latest_items(records, pasts):
    chains = [(record, chain) for record in records for chain in record.chains]
    assert len(chains) > 100
    for record, chain in chains:
        own, peer = pasts[chain.user], pasts[chain.peer]
        assert chain.user == record.user != chain.peer and chain.i0 != chain.i1
        assert (own[chain.i0][1], own[chain.i1][1]) == (chain.r00, chain.r01)
        assert (peer[chain.i0][1], peer[chain.i1][1]) == (chain.r10, chain.r11)
    shown = 0
    for record in records:
        seen = [item for item, _ in record.history]
        pairs = [(seen.index(chain.i0), seen.index(chain.i1)) for chain in record.chains]
        assert all(second == first + 1 for first, second in pairs) and pairs == sorted(pairs)
        shown += len(pairs) == 3 and pairs == [(len(seen) - k, len(seen) - k + 1) for k in (6, 4, 2)]
    assert shown > 300  # some pairs were rated by nobody else


def test_windows_are_stretches_of_history_and_cover_it(moments, pasts):
    rng, shown = np.random.default_rng(1), set()
    for _ in range(3000):
        window = moments.window(rng, 8)
        order = sorted(pasts[window.user].items(), key=lambda pair: pair[1][0])
        order = [(item, rating) for item, (_, rating) in order]
        first = order.index(window.rated[0])
        assert 1 <= len(window.rated) <= 8 and order[first : first + len(window.rated)] == window.rated
        shown |= {(window.user, item) for item, _ in window.rated}
    assert len(shown) > 0.98 * sum(map(len, pasts))


@pytest.mark.parametrize("field", [{"chain_length": 2}, {"chain_selection": "uniform"}])
def test_other_chains_are_refused(dataset, field):
    config = mini(base()).prompt
    config.update(field)
    with pytest.raises(UserError, match="pretraining needs chain_selection 'recent' and chain_length 1"):
        Moments(dataset, build_graph(dataset), config)
