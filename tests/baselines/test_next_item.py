"""Sequence models against the same formulas by loops, and their losses."""

import jax
import numpy as np
import pytest

from configs.baselines import get_config
from r2rec_jax.baselines.caser import Caser
from r2rec_jax.baselines.gru4rec import GRU4Rec
from r2rec_jax.baselines.next_item import NextItem
from r2rec_jax.baselines.sasrec import SASRec

ITEMS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]], np.int32)
USERS = np.array([7, 2], np.int32)


def run(module) -> tuple[dict, np.ndarray]:
    params = module.init(jax.random.key(0), USERS, ITEMS)["params"]
    found = module.apply({"params": params}, USERS, ITEMS)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params), np.asarray(found)


def layer_norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_sasrec_position_by_position():
    params, found = run(SASRec(10, 8, 2, 2, 5, 0.0))
    for row in range(2):
        x = params["item_embedding"][ITEMS[row]] * 8**0.5 + params["position_embedding"]
        for layer in range(2):
            p = params[f"MultiHeadDotProductAttention_{layer}"]
            seen, mixed = layer_norm(x, params[f"LayerNorm_{2 * layer}"]), np.zeros_like(x)
            for t in range(5):
                for head in range(2):
                    q, k, v = (
                        seen @ p[n]["kernel"][:, head] + p[n]["bias"][head] for n in ("query", "key", "value")
                    )
                    weight = softmax(k[: t + 1] @ q[t] / 4**0.5)
                    mixed[t] += weight @ v[: t + 1] @ p["out"]["kernel"][head]
            x = x + mixed + p["out"]["bias"]
            inner = layer_norm(x, params[f"LayerNorm_{2 * layer + 1}"])
            first, second = params[f"Dense_{2 * layer}"], params[f"Dense_{2 * layer + 1}"]
            inner = np.maximum(inner @ first["kernel"] + first["bias"], 0)
            x = x + inner @ second["kernel"] + second["bias"]
        np.testing.assert_allclose(found[row], layer_norm(x, params["LayerNorm_4"]), atol=1e-5)


def test_gru4rec_step_by_step():
    params, found = run(GRU4Rec(10, 8, 6, 0.0))
    p = params["GRUCell_0"]
    for row in range(2):
        h = np.zeros(6)
        for t, item in enumerate(ITEMS[row]):
            x = params["item_embedding"][item] * 8**0.5
            reset = sigmoid(x @ p["ir"]["kernel"] + p["ir"]["bias"] + h @ p["hr"]["kernel"])
            update = sigmoid(x @ p["iz"]["kernel"] + p["iz"]["bias"] + h @ p["hz"]["kernel"])
            new = np.tanh(
                x @ p["in"]["kernel"] + p["in"]["bias"] + reset * (h @ p["hn"]["kernel"] + p["hn"]["bias"])
            )
            h = (1 - update) * new + update * h
            out = params["Dense_0"]
            np.testing.assert_allclose(found[row, t], h @ out["kernel"] + out["bias"], atol=1e-5)


def test_caser_window_by_window():
    params, found = run(Caser(10, 10, 4, 0.0, window=3, horizontal=2, vertical=2))
    for row in range(2):
        for t in range(5):
            image = np.zeros((3, 4))  # the last three items, zeros before the first
            for k, item in enumerate(ITEMS[row][max(0, t - 2) : t + 1][::-1]):
                image[2 - k] = params["input_embedding"][item] * 2
            found_by = []
            for height in (1, 2, 3):
                p = params[f"Conv_{height - 1}"]
                slides = [
                    np.einsum("hd,hdf->f", image[k : k + height], p["kernel"]) + p["bias"]
                    for k in range(4 - height)
                ]
                found_by.append(np.maximum(np.max(slides, axis=0), 0))
            found_by.append((image.T @ params["vertical"]).reshape(-1))
            dense = params["Dense_0"]
            taste = np.maximum(np.concatenate(found_by) @ dense["kernel"] + dense["bias"], 0)
            expected = np.concatenate([taste, params["user_embedding"][USERS[row]] * 2])
            np.testing.assert_allclose(found[row, t], expected, atol=1e-5)


@pytest.fixture(scope="module")
def section():
    c = get_config().sasrec
    c.update({"length": 4, "width": 8, "dropout": 0.0})
    c.train.update({"batch_size": 8})
    return c


def test_softmax_loss_and_scores_by_loops(dataset, users, section):
    system = NextItem(dataset, section, seed=0)
    params = system.init(jax.random.key(0))
    batch = system.batches[0]
    hidden = np.asarray(system.module.apply({"params": params}, batch["user"], batch["items"]), np.float64)
    table = np.asarray(params["item_embedding"], np.float64)
    total = [
        -np.log(softmax(table @ hidden[n, t])[batch["target"][n, t]])
        for n, t in zip(*np.nonzero(batch["mask"]), strict=True)
    ]
    found = system.loss(params, {}, batch, jax.random.key(5))
    np.testing.assert_allclose(found, np.mean(total), rtol=1e-5)

    scores = system.scores(params, users)
    for row, user in enumerate(users):
        own = dataset.interactions.item[dataset.history(user)][-4:][None]
        last = np.asarray(system.module.apply({"params": params}, np.array([user]), own), np.float64)[0, -1]
        np.testing.assert_allclose(scores[row], table[dataset.split.candidates[user]] @ last, atol=1e-5)


def test_bce_loss_is_that_of_uniform_negatives(dataset, section):
    """Its mean over keys is the closed form over all items."""
    c = section.copy_and_resolve_references()
    c.loss = "bce"
    system = NextItem(dataset, c, seed=0)
    params = jax.tree.map(lambda x: 30 * x, system.init(jax.random.key(0)))
    batch = system.batches[0]
    keys = jax.random.split(jax.random.key(1), 500)
    found = jax.vmap(lambda key: system.loss(params, {}, batch, key))(keys)
    hidden = np.asarray(system.module.apply({"params": params}, batch["user"], batch["items"]), np.float64)
    logits = hidden[batch["mask"] > 0] @ np.asarray(params["item_embedding"], np.float64).T
    target = batch["target"][batch["mask"] > 0]
    right = -np.log(sigmoid(logits[np.arange(len(target)), target]))
    expected = (right - np.log(sigmoid(-logits)).mean(axis=1)).mean()
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / len(keys) ** 0.5
