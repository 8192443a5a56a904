"""Item tokens against the same vectors written into a longer embedding."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base
from r2rec_jax.model import huggingface
from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.item_tokens import read_items
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.model.policy import load_policy, with_items
from r2rec_jax.rollout.decoder_weights import decoder, decoder_variables
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

V, N_ITEMS, WIDTH = 53, 7, 3
TABLE = np.random.default_rng(1).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def model(config) -> Llama:
    return Llama(config, LoRAConfig(rank=2, alpha=4.0), items=TABLE.shape)


@pytest.fixture(scope="module")
def fresh(model) -> dict:
    return jax.device_get(jax.jit(lambda: init_variables(model, 0))())


@pytest.fixture(scope="module")
def variables(fresh, randomize) -> dict:
    noise = {name: randomize(fresh[name]) for name in ("lora", "projector")}
    return fresh | noise | {"items": {"item_tokens": {"table": TABLE}}}


def hidden(model, variables, tokens) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(variables, np.array(tokens, np.int32))[0])


def batch() -> CompletionBatch:
    """Prompts of words and items, two responses of words each."""
    rng = np.random.default_rng(0)
    return CompletionBatch(
        prompt=rng.integers(0, V + N_ITEMS, (3, 9)).astype(np.int32),
        prompt_length=np.array([9, 4, 6], np.int32),
        response=rng.integers(0, V, (6, 4)).astype(np.int32),
        response_mask=np.ones((6, 4), np.float32),
    )


def longer(projector: dict, params: dict):
    """`params` whose embedding has a row for every item, by LLaRA's formula, and a head as long."""
    w = projector["item_tokens"]
    x = TABLE @ w["w1"] + w["b1"]
    gelu = x * (1 + jax.scipy.special.erf(x / math.sqrt(2))) / 2
    rows = gelu @ w["w2"] + w["b2"]
    dead = jnp.zeros((params["lm_head"].shape[0], N_ITEMS))
    return params | {
        "embed_tokens": jnp.concatenate([params["embed_tokens"], rows]),
        "lm_head": jnp.concatenate([params["lm_head"], dead], axis=1),
    }


def test_hidden_states_are_those_of_the_longer_embedding(model, variables):
    tokens = np.array([[3, V, 52, V + 6, V + 2, 0], [V + 5, 1, 1, V, 8, 9]])
    plain = Llama(dataclasses.replace(model.config, vocab_size=V + N_ITEMS), model.lora)
    params = longer(variables["projector"], variables["params"])
    wanted = hidden(plain, {"params": params, "lora": variables["lora"]}, tokens)
    got = hidden(model, variables, tokens)
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    other = hidden(model, variables, np.where(tokens == V + 6, V + 1, tokens))
    assert np.abs(other - got).max() > 1e-3


def test_the_projectors_gradient_flows_through_a_shared_prompt(model, variables, assert_close):
    """As through the rows of the longer embedding, every completion computed with a prompt of its own."""
    plain = Llama(dataclasses.replace(model.config, vocab_size=V + N_ITEMS), model.lora)
    given = batch()

    def by_tokens(projector):
        return completion_logprobs(model, variables | {"projector": projector}, given)[0].sum()

    rows, places = np.zeros((6, 13), np.int32), np.zeros((6, 4), np.int32)
    for n, response in enumerate(given.response):
        length = given.prompt_length[n // 2]
        rows[n, : length + 4] = np.concatenate([given.prompt[n // 2][:length], response])
        places[n] = np.arange(length - 1, length + 3)

    def by_rows(projector):
        params = longer(projector, variables["params"])
        states, _ = plain.apply({"params": params, "lora": variables["lora"]}, rows)
        logprobs = jax.nn.log_softmax(states @ params["lm_head"][:, :V])
        return logprobs[np.arange(6)[:, None], places, given.response].sum()

    got = jax.jit(jax.value_and_grad(by_tokens))(variables["projector"])
    assert_close(got, jax.jit(jax.value_and_grad(by_rows))(variables["projector"]))
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(got[1]))


def test_off_there_is_nothing_of_it(model, variables, fresh):
    off = model.clone(items=None)
    plain = jax.device_get(jax.jit(lambda: init_variables(off, 0))())
    jax.tree.map(np.testing.assert_array_equal, plain, {name: fresh[name] for name in ("params", "lora")})
    words = [[3, 52, 0]]
    np.testing.assert_allclose(
        hidden(off, {name: variables[name] for name in plain}, words),
        hidden(model, variables, words),
        atol=1e-6,
    )


@pytest.mark.parametrize("weights", ["adapter", "merged"])
def test_the_samplers_copy_reads_items_too(model, variables, weights):
    tokens = [[3, V, 52, V + 6, V + 2, 0]]
    got = hidden(decoder(model, weights), decoder_variables(model, weights, variables), tokens)
    np.testing.assert_allclose(got, hidden(model, variables, tokens), atol=2e-5)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "items.npy", TABLE)
    return str(tmp_path / "items.npy")


def test_a_policy_has_the_table_frozen_and_the_projector_trained(config, fresh, path, tmp_path):
    huggingface.save_params(tmp_path / "model", config, fresh["params"], dtype=np.float32)
    c = base()
    c.model.update({"folder": str(tmp_path / "model"), "dtype": "float32"})
    mesh = make_mesh(data=1)
    plain = load_policy(c.model, c.lora, mesh, seed=0)
    policy = with_items(plain, path, mesh, seed=0)
    assert set(policy.trainable) == {"lora", "projector"} and set(policy.frozen) == {"params", "items"}
    np.testing.assert_array_equal(policy.frozen["items"]["item_tokens"]["table"], TABLE)
    jax.tree.map(np.testing.assert_array_equal, policy.trainable["lora"], plain.trainable["lora"])
    assert policy.frozen["params"] is plain.frozen["params"] and policy.model.items == TABLE.shape


def test_what_is_no_table_is_named(path, tmp_path):
    np.testing.assert_array_equal(read_items(path), TABLE)
    with pytest.raises(UserError, match=r"no item vectors at .*absent.npy: set model.item_table"):
        read_items(tmp_path / "absent.npy")
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(UserError, match=r"text.npy is not an .npy table"):
        read_items(tmp_path / "text.npy")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04" + bytes(40))
    for name in ("empty", "zip"):
        with pytest.raises(UserError, match=rf"{name}.npy is not an .npy table"):
            read_items(tmp_path / f"{name}.npy")
    bad = {"flat": TABLE[0], "wide": TABLE.astype(np.float64), "nan": TABLE * np.nan, "none": TABLE[:0]}
    for name, array in bad.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(UserError, match=rf"{name}.npy is not an .npy table of finite float32 vectors"):
            read_items(tmp_path / f"{name}.npy")
