import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

NEVER = -1  # an end token that no vocabulary holds

# Three prompts of 2, 6 and 1 tokens, padded on the right with real tokens.
PROMPT = np.random.default_rng(0).integers(1, 20, (3, 6)).astype(np.int32)
LENGTH = np.array([2, 6, 1], np.int32)
IDS = np.array([40, 7, 19], np.int32)


def make_model(vocab: int = 24, lora: LoRAConfig | None = None) -> Llama:
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        rope_scaling=None,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    return Llama(config, lora)


def make_variables(model: Llama) -> dict:
    """Random variables, moved so that adapters act and no two logits are close."""
    leaves, tree = jax.tree.flatten(init_variables(model, 0))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def next_logits(model: Llama, variables: dict, tokens) -> np.ndarray:
    """Logits [N, T, V] after every token of [N, T], by a full forward: no cache, no prefix."""
    hidden, _ = jax.jit(model.apply)(variables, jnp.asarray(tokens, jnp.int32))
    return np.asarray(hidden @ head(variables["params"]), np.float64)


def generate(engine, variables, rows=(0, 1, 2), *, samples=2, seed=3):
    rows = np.array(rows)
    prompts = Prompts(PROMPT[rows], LENGTH[rows], IDS[rows])
    return Rollout.of_groups(engine(variables, prompts, samples=samples, seed=seed))


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def variables(model):
    return make_variables(model)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2, alpha=4.0)])
def test_greedy_is_the_argmax_of_the_full_forward(lora):
    model = make_model(lora=lora)
    variables = make_variables(model)
    rollout = generate(
        Engine(model, NEVER, RolloutConfig(max_tokens=7, temperature=0.0, top_p=1.0, chunk=3)), variables
    )
    rows = np.zeros((6, 13), np.int32)
    places = np.repeat(LENGTH, 2)[:, None] + np.arange(7)
    for row, tokens in enumerate(rollout.tokens):
        length = LENGTH[row // 2]
        rows[row, : length + 7] = np.concatenate([PROMPT[row // 2, :length], tokens])
    logits = next_logits(model, variables, rows)[np.arange(6)[:, None], places - 1]
    np.testing.assert_array_equal(rollout.tokens, logits.argmax(axis=-1))
    best = scipy.special.log_softmax(logits, axis=-1).max(axis=-1)
    np.testing.assert_allclose(rollout.logprobs, best, rtol=1e-4)


def test_adapters_change_what_is_generated():
    model = make_model(lora=LoRAConfig(rank=2, alpha=4.0))
    adapted = make_variables(model)
    bare = {**adapted, "lora": jax.tree.map(jnp.zeros_like, adapted["lora"])}
    engine = Engine(model, NEVER, RolloutConfig(max_tokens=6, temperature=0.0, top_p=1.0))
    assert (generate(engine, adapted).tokens != generate(engine, bare).tokens).any()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.7, 0.8)])
def test_logprobs_are_the_trainers(model, variables, temperature, top_p):
    engine = Engine(model, 4, RolloutConfig(max_tokens=9, temperature=temperature, top_p=top_p, chunk=4))
    rollout = generate(engine, variables, samples=5)
    mask = np.arange(9) < rollout.length[:, None]
    assert 0 < mask.sum() < mask.size, "this seed should end some responses early"
    batch = CompletionBatch(PROMPT, LENGTH, rollout.tokens, mask.astype(np.float32))
    forced, _ = completion_logprobs(model, variables, batch, temperature=temperature)
    np.testing.assert_allclose(rollout.logprobs[mask], forced[mask], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rollout.logprobs[~mask], 0)


@pytest.mark.slow
def test_a_sample_depends_on_seed_prompt_and_index_alone(model, variables):
    def run(rows, samples, chunk, seed=3):
        engine = Engine(model, 4, RolloutConfig(max_tokens=10, temperature=1.0, top_p=0.95, chunk=chunk))
        rollout = generate(engine, variables, rows, samples=samples, seed=seed)
        return rollout.tokens.reshape(len(rows), samples, -1)

    whole = run((0, 1, 2), samples=4, chunk=16)
    for chunk in (1, 3, 10):
        np.testing.assert_array_equal(run((0, 1, 2), samples=4, chunk=chunk), whole)
    np.testing.assert_array_equal(run((2, 0), samples=4, chunk=5), whole[[2, 0]])
    np.testing.assert_array_equal(run((1,), samples=2, chunk=5), whole[[1], :2])
    assert (run((0, 1, 2), samples=4, chunk=16, seed=4) != whole).any()
    assert len({tuple(row) for row in whole.reshape(12, -1)}) > 6, "samples should differ"


@pytest.mark.slow
@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_two_token_sequences_follow_the_exact_distribution(top_p):
    model, draws, temperature = make_model(vocab=5), 20_000, 3.0
    variables = make_variables(model)
    engine = Engine(model, NEVER, RolloutConfig(max_tokens=2, temperature=temperature, top_p=top_p, chunk=2))
    prompts = Prompts(np.array([[1, 3, 0]], np.int32), np.array([2], np.int32), np.array([0], np.int32))
    rollout = Rollout.of_groups(engine(variables, prompts, samples=draws, seed=0))

    def truncated_softmax(logits):
        p = scipy.special.softmax(logits / temperature)
        order = np.argsort(-p)
        p[order[np.cumsum(p[order]) - p[order] >= top_p]] = 0
        return p / p.sum()

    logits = next_logits(model, variables, [[1, 3, token] for token in range(5)])
    first = truncated_softmax(logits[0, 1])
    second = [truncated_softmax(logits[token, 2]) for token in range(5)]
    exact = np.array([first[a] * second[a][b] for a, b in itertools.product(range(5), repeat=2)])
    seen = np.bincount(rollout.tokens[:, 0] * 5 + rollout.tokens[:, 1], minlength=25)
    possible = exact > 0
    assert seen[~possible].sum() == 0
    assert exact[possible].min() * draws >= 5, "too rare for a chi-square: draw more"
    assert scipy.stats.chisquare(seen[possible], exact[possible] * draws).pvalue > 1e-3


def test_the_end_token_stops_a_row_and_the_rest_is_zero(model, variables):
    free = generate(
        Engine(model, NEVER, RolloutConfig(max_tokens=8, temperature=1.0, top_p=1.0)), variables, samples=8
    )
    assert free.truncated.all()
    assert (free.length == 8).all()
    end = 4
    stopped = generate(
        Engine(model, end, RolloutConfig(max_tokens=8, temperature=1.0, top_p=1.0, chunk=3)),
        variables,
        samples=8,
    )
    for row in range(24):
        at = np.flatnonzero(free.tokens[row] == end)
        length = at[0] + 1 if len(at) else 8
        assert stopped.length[row] == length
        assert stopped.truncated[row] == (len(at) == 0)
        np.testing.assert_array_equal(stopped.tokens[row, :length], free.tokens[row, :length])
        np.testing.assert_array_equal(stopped.tokens[row, length:], 0)
        np.testing.assert_array_equal(stopped.logprobs[row, length:], 0)
    assert 0 < stopped.truncated.sum() < 24, "this seed should show both endings"


def test_decoding_stops_with_the_last_row(model, variables, monkeypatch):
    greedy = generate(
        Engine(model, NEVER, RolloutConfig(max_tokens=2, temperature=0.0, top_p=1.0)), variables, rows=(0,)
    )
    engine = Engine(
        model, int(greedy.tokens[0, 0]), RolloutConfig(max_tokens=12, temperature=0.0, top_p=1.0, chunk=2)
    )
    chunks, decode = [], engine._decode
    monkeypatch.setattr(engine, "_decode", lambda *a: chunks.append(1) or decode(*a))
    rollout = generate(engine, variables, rows=(0,))
    assert len(chunks) == 1
    np.testing.assert_array_equal(rollout.length, [1, 1])


def test_programs_compile_once_a_shape(model, variables):
    engine = Engine(model, 4, RolloutConfig(max_tokens=6, temperature=1.0, top_p=0.9, chunk=2), slots=2)
    for seed in range(3):
        generate(engine, variables, (seed, 0, 1), seed=seed)
    programs = (engine._copy, engine._fill, engine._refill, engine._decode)
    assert [program._cache_size() for program in programs] == [1, 1, 1, 1]
    generate(engine, variables, (0, 1, 2), samples=3)
    assert [program._cache_size() for program in programs] == [1, 2, 2, 2]


def test_no_cache_is_copied_while_decoding(model, variables):
    engine = Engine(model, 4, RolloutConfig(max_tokens=9, temperature=1.0, chunk=4))
    weights = engine._copy(variables)
    state = engine._fill(weights, Prompts(PROMPT, LENGTH, IDS), IDS, jax.random.key(0), samples=2)
    program = engine._decode.lower(weights, state).compile().as_text()
    cache = "f32[6,2,9,4]"
    assert tuple(state.own.k[0].shape) == (6, 2, 9, 4) and cache in program
    assert not re.search(re.escape(cache) + r"\S* copy\(", program)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 4])
def test_refilled_slots_say_what_fixed_ones_do(model, variables, slots, chunk):
    rng = np.random.default_rng(2)
    prompts, lengths = rng.integers(1, 20, (9, 6)).astype(np.int32), rng.integers(1, 7, 9).astype(np.int32)
    ids = np.arange(9, dtype=np.int32)

    def run(**how):
        slots = how.pop("slots", 0)
        engine = Engine(model, 4, RolloutConfig(max_tokens=12, temperature=1.0, **how), slots=slots)
        order = list(engine(variables, Prompts(prompts, lengths, ids), samples=2, seed=0))
        return engine, Rollout.of_groups(order), order

    _, fixed, _ = run()
    engine, refilled, order = run(slots=slots, chunk=chunk)
    assert len(set(fixed.length)) > 3, "this seed should end rows at many lengths"
    for field in dataclasses.fields(fixed):
        ours, theirs = getattr(refilled, field.name), getattr(fixed, field.name)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=field.name)
    assert sorted(b for b, _ in order) == list(range(9))
    for b, group in order:
        np.testing.assert_array_equal(group.tokens, fixed.tokens[2 * b : 2 * b + 2])
    # By hand: a prompt holds its slot for whole chunks, until the longer of its two rows has ended.
    if slots == 1:
        chunks = sum(-(-fixed.length[2 * b : 2 * b + 2].max() // chunk) for b in range(9))
        assert engine.utilisation == pytest.approx(fixed.length.sum() / (2 * chunk * chunks))


def test_refilling_wastes_less_than_waiting_for_the_batch(model, variables):
    prompts, lengths = np.tile(PROMPT, (8, 1)), np.tile(LENGTH, 8)
    ids = np.arange(24, dtype=np.int32)

    def utilisation(slots, calls):
        engine, drawn = (
            Engine(model, 4, RolloutConfig(max_tokens=40, temperature=3.0, chunk=1), slots=slots),
            [],
        )
        for rows in np.split(np.arange(24), calls):
            batch = Prompts(prompts[rows], lengths[rows], ids[rows])
            list(engine(variables, batch, samples=1, seed=0))
            drawn.append(engine.utilisation)
        return np.mean(drawn)

    assert utilisation(slots=4, calls=1) > utilisation(slots=0, calls=6) + 0.05


def test_stop_texts_end_a_row_with_the_token_that_completes_one(model, variables):
    letters = "abcdefghijklmnopqrstuvwxyz"

    def text(ids):
        return "".join(letters[k] for k in ids)

    free = generate(
        Engine(model, NEVER, RolloutConfig(max_tokens=10, temperature=1.0, chunk=3)), variables, samples=6
    )
    said = [text(row) for row in free.tokens.tolist()]
    pair, letter = said[0][3:5], said[1][2]
    sampling = RolloutConfig(max_tokens=10, temperature=1.0, chunk=3, stop=(pair, letter))
    stopped = generate(Engine(model, NEVER, sampling, decode_text=text), variables, samples=6)
    for row, whole in enumerate(said):
        ends = [whole.index(stop) + len(stop) for stop in (pair, letter) if stop in whole]
        length = min(ends, default=10)
        assert stopped.length[row] == length and stopped.truncated[row] == (not ends)
        assert text(stopped.tokens[row, :length].tolist()) == whole[:length]
        assert not stopped.tokens[row, length:].any() and not stopped.logprobs[row, length:].any()
    assert 0 < stopped.truncated.sum() < 18, "this seed should show both endings"


def forced_gap(model, variables, rollout) -> float:
    """The mean difference between the sampler's log-probabilities and the trainer's."""
    mask = np.ones(rollout.tokens.shape, np.float32)
    batch = CompletionBatch(PROMPT, LENGTH, rollout.tokens, mask)
    return float(np.abs(rollout.logprobs - completion_logprobs(model, variables, batch)[0]).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "least", "most"),
    [
        ({"weights": "adapter"}, 0, 1e-5),
        ({"weights": "merged"}, 0, 1e-5),
        ({"weights": "int8"}, 1e-4, 3e-2),
        ({"cache": "int8"}, 1e-4, 3e-2),
    ],
)
def test_what_the_samplers_copy_changes_shows_in_its_logprobs(how, least, most):
    model = make_model(lora=LoRAConfig(rank=2, alpha=4.0))
    variables = make_variables(model)
    rollout = generate(
        Engine(model, NEVER, RolloutConfig(max_tokens=8, temperature=1.0, **how)), variables, samples=4
    )
    assert least <= forced_gap(model, variables, rollout) <= most


@pytest.mark.parametrize("how", [{"weights": "int4"}, {"cache": "fp8"}])
def test_unknown_copies_are_refused(model, how):
    with pytest.raises(UserError, match=next(iter(how.values()))):
        Engine(model, 4, RolloutConfig(max_tokens=8, temperature=1.0, **how))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"chunk": 0},
        {"temperature": -0.5},
        {"top_k": -1},
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"stop": "text"},
        {"stop": ("a", "")},
    ],
)
def test_sampling_out_of_range_is_named(wrong):
    with pytest.raises(UserError, match=f"rollout.{next(iter(wrong))}="):
        RolloutConfig(**{"max_tokens": 8, "temperature": 1.0} | wrong)


def test_nothing_can_be_merged_into_an_int8_base(model):
    with pytest.raises(UserError, match="weights=adapter"):
        Engine(model.clone(int8=True), 4, RolloutConfig(max_tokens=8, temperature=1.0, weights="merged"))


@pytest.mark.eight_devices
@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_a_mesh_says_what_one_device_does(sizes):
    model = make_model(vocab=32, lora=LoRAConfig(rank=2, alpha=4.0))
    variables = make_variables(model)
    rng = np.random.default_rng(2)
    prompts, ids = rng.integers(1, 20, (11, 6)).astype(np.int32), np.arange(11, dtype=np.int32)
    lengths = rng.integers(1, 7, 11).astype(np.int32)

    def run(mesh, slots=0, **how):
        sampling = RolloutConfig(max_tokens=8, temperature=1.0, chunk=2, **how)
        engine = Engine(model, 4, sampling, mesh, slots=slots)
        return Rollout.of_groups(engine(variables, Prompts(prompts, lengths, ids), samples=2, seed=0))

    mesh = make_mesh(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    alone = run(None)
    for how in ({}, {"slots": 8, "weights": "merged"}):
        many = run(mesh, **how)
        np.testing.assert_array_equal(many.tokens, alone.tokens)
        np.testing.assert_allclose(many.logprobs, alone.logprobs, atol=1e-4)


@pytest.mark.slow
def test_on_eight_devices(run_on_eight_devices):
    run_on_eight_devices()
