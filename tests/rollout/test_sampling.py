import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from r2rec_jax.rollout.sampling import draw, largest, logprob, nucleus, sample


def brute_force_nucleus(logits: np.ndarray, top_p: float) -> set[int]:
    probability = scipy.special.softmax(logits.astype(np.float64))
    kept, mass = set(), 0.0
    for token in np.argsort(-probability):
        if mass >= top_p:
            break
        kept.add(int(token))
        mass += probability[token]
    return kept


def weights(logits: np.ndarray) -> jnp.ndarray:
    return jnp.exp(logits - logits.max(axis=-1, keepdims=True))


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_nucleus_is_the_smallest_set_that_reaches_the_mass(top_p, spread):
    logits = np.random.default_rng(1).normal(0, spread, (20, 50)).astype(np.float32)
    kept = np.asarray(nucleus(weights(logits), top_p)) > 0
    for row, mask in zip(logits, kept, strict=True):
        assert set(np.flatnonzero(mask)) == brute_force_nucleus(row, top_p)


def test_nucleus_keeps_all_tokens_as_likely_as_its_last():
    weight = jnp.array([[1.0, 0.5, 0.5, 0.25]])
    np.testing.assert_array_equal(nucleus(weight, 0.6), [[1.0, 0.5, 0.5, 0.0]])


def test_nucleus_of_equal_tokens_is_all_of_them():
    np.testing.assert_array_equal(nucleus(jnp.ones((1, 7)), 0.3), jnp.ones((1, 7)))


def test_a_weightless_token_is_never_drawn():
    weight = jnp.tile(jnp.array([0.0, 1.0, 0.0, 1e-3, 0.0]), (5_000, 1))
    token = draw(weight, jax.random.split(jax.random.key(0), 5_000))
    assert set(np.unique(token)) == {1, 3}


def test_draws_follow_a_wide_vocabulary():
    """More tokens than a float's cumulative sum holds exactly; their ids fall in ten bins."""
    logits = np.random.default_rng(3).normal(0, 2, 50_000).astype(np.float32)
    draw_row = jax.jit(lambda key: draw(weights(logits)[None], key[None])[0])
    token = jax.lax.map(draw_row, jax.random.split(jax.random.key(0), 2_000))
    expected = scipy.special.softmax(logits.astype(np.float64)).reshape(10, -1).sum(1) * 2_000
    seen = np.bincount(np.asarray(token) // 5_000, minlength=10)
    assert scipy.stats.chisquare(seen, expected).pvalue > 1e-3


def kept_by_hand(p: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The distribution p with top-k, then top-p of what is left, then min-p; normalised."""
    order = np.argsort(-p)
    kept = np.zeros(len(p), bool)
    kept[order[: top_k or len(p)]] = True
    q = np.where(kept, p, 0) / p[kept].sum()
    before = np.concatenate([[0], np.cumsum(q[order])[:-1]])
    kept[order[before >= top_p]] = False
    kept &= p >= min_p * p.max()
    q = np.where(kept, p, 0)
    return q / q.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [(0.5, 0, 1.0, 0.0), (2.0, 0, 0.7, 0.0), (1.0, 3, 1.0, 0.0), (1.0, 4, 0.8, 0.0), (1.5, 0, 1.0, 0.5)],
)
def test_draws_follow_the_truncated_softmax(temperature, top_k, top_p, min_p):
    draws = 20_000
    logits = np.array([0.3, 1.4, -0.8, 0.9, 0.2, -0.1], np.float32)
    keys = jax.random.split(jax.random.key(0), draws)
    how = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    token = sample(jnp.tile(logits, (draws, 1)), keys, **how)
    p = kept_by_hand(scipy.special.softmax(logits.astype(np.float64) / temperature), top_k, top_p, min_p)
    seen = np.bincount(token, minlength=6)
    assert not seen[p == 0].any()
    assert scipy.stats.chisquare(seen[p > 0], p[p > 0] * draws).pvalue > 1e-3


@pytest.mark.parametrize("k", [1, 7, 50])
def test_largest_keeps_k_and_ties(k):
    weight = weights(np.random.default_rng(4).normal(size=(20, 50)).astype(np.float32))
    np.testing.assert_array_equal((np.asarray(largest(weight, k)) > 0).sum(axis=1), k)
    tied = jnp.array([[1.0, 0.5, 0.5, 0.25]])
    np.testing.assert_array_equal(largest(tied, 2), [[1.0, 0.5, 0.5, 0.0]])


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_logprobs_are_of_the_whole_distribution(temperature):
    logits = np.random.default_rng(2).normal(size=(6, 9)).astype(np.float32)
    token = np.arange(6)
    exact = scipy.special.log_softmax(logits.astype(np.float64) / (temperature or 1.0), axis=1)
    np.testing.assert_allclose(logprob(logits, token, temperature), exact[token, token], rtol=1e-5)


def test_greedy_takes_the_argmax():
    logits = np.random.default_rng(2).normal(size=(6, 9)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 6)
    token = sample(jnp.asarray(logits), keys, temperature=0.0, top_p=0.5)
    np.testing.assert_array_equal(token, logits.argmax(axis=1))
