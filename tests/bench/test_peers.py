"""The suites beside torch: what both sides load, what ours computes, and rows beside a peer played here.

The peers themselves need torch, which these tests do without.
"""

import contextlib
import itertools

import jax
import numpy as np
import pytest

from r2rec_jax.bench import grpo, models, rollout, sft
from r2rec_jax.model.huggingface import abstract_params
from r2rec_jax.model.peft import load_adapter
from r2rec_jax.model.policy import load_policy
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.train import supervised


@pytest.fixture
def folder(tmp_path):
    models.write_models(tmp_path, models.SMALLEST)
    prompt, response = (models.random_tokens(models.SMALLEST, 2, T, seed=T) for T in (6, 3))
    np.savez(tmp_path / "batch.npz", prompt=prompt, response=response)
    return tmp_path


class Played:
    """A peer that answers what it is told to."""

    def __init__(self, hello, reply):
        self.hello, self.reply, self.turns = hello, reply, 0

    def ask(self):
        self.turns += 1
        return self.reply


def play(monkeypatch, suite, hello, reply=None, best="eager,dynamic,float32"):
    peer, asked = Played(hello, reply), []

    @contextlib.contextmanager
    def serving(python, script, _, variant):
        asked.append((python, script, variant))
        yield peer

    monkeypatch.setattr(suite, "serving", serving)
    monkeypatch.setattr(suite, "fastest", lambda *_: best)
    return peer, asked


def test_the_models_are_of_the_sizes_promised():
    for config, millions in ((models.LLAMA_25M, 25.7), (models.LLAMA_5M, 5.4)):
        count = sum(np.prod(leaf.shape) for leaf in abstract_params(config).values())
        assert count / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_folder_holds_an_adapter_that_changes_the_model(folder):
    config = models.run_config(folder)
    policy = load_policy(config.model, config.lora, make_mesh(), seed=3)
    lora, adapter = load_adapter(folder / "adapter", models.SMALLEST)
    assert lora.rank == models.LORA.rank and set(lora.targets) == set(models.LORA.targets)
    for loaded, stored in zip(*map(jax.tree.leaves, (policy.trainable["lora"], adapter)), strict=True):
        assert np.array_equal(loaded, stored) and np.abs(stored).max() > 0


@pytest.mark.slow
def test_an_sft_step_learns_and_compiles_once(folder, monkeypatch):
    traced = []
    original = supervised.supervised_update
    monkeypatch.setattr(supervised, "supervised_update", lambda *a: traced.append(1) or original(*a))
    step = sft.make_step(folder)
    losses = [float(step()["train/loss"]) for _ in range(4)]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert len(traced) == 1


@pytest.mark.slow
def test_sft_rows(folder, monkeypatch):
    first = sft.make_step(folder)()
    hello = {"loss": float(first["train/loss"]), "norm": float(first["train/grad_norm"])}
    peer, asked = play(monkeypatch, sft, hello, best="compiled,bfloat16")
    rows = sft._steps("python", folder, "step", repeats=2)
    assert [row.target for row in rows] == [1.1, 1.5]
    assert "(compiled,bfloat16)" in rows[0].name and "eager,float32" in rows[1].name
    assert [variant for *_, variant in asked] == ["compiled,bfloat16", "eager,float32"]
    assert peer.turns == 10  # one to warm up and two of two, twice
    with pytest.raises(ValueError, match="loss of the first step"):
        play(monkeypatch, sft, hello | {"loss": hello["loss"] * 1.01})
        sft._steps("python", folder, "step", repeats=2)


@pytest.mark.slow
def test_first_steps_are_those_of_fresh_processes(folder, monkeypatch):
    monkeypatch.setattr(sft, "run_peer", lambda *_: {"seconds": 100.0})
    cold, warm = sft._first_steps("python", folder, repeats=1)
    assert cold.peer == sft.COLD_S and warm.peer == 100.0 and warm.met
    assert 0 < warm.ours < 60 and 0 < cold.ours < 60
    assert any((folder / "cache").iterdir())


def test_every_row_of_a_rollout_runs_to_its_end(folder):
    prompts = models.random_tokens(models.SMALLEST, 2, 5)
    generate = rollout.make_generate(folder, prompts, samples=3, tokens=4)
    first, second = generate(), generate()
    assert first.tokens.shape == (6, 4) and first.truncated.all()
    assert not np.array_equal(first.tokens, second.tokens)


@pytest.mark.slow
def test_rollout_rows(monkeypatch):
    expected = {}
    original = rollout.make_generate

    def watched(*arguments, **options):
        generate = original(*arguments, **options)

        def once():
            expected.setdefault("rollout", out := generate())
            peer.hello["mean_logprob"] = float(expected["rollout"].logprobs.mean())
            return out

        return once

    peer, asked = play(monkeypatch, rollout, {}, {"shape": [4, 16]})
    monkeypatch.setattr(rollout, "make_generate", watched)
    (row,) = rollout.run("python", quick=True)
    assert row.target == 2.5 and "(eager,dynamic,float32)" in row.name and row.peer is not None
    assert asked == [("python", rollout.SCRIPT, "eager,dynamic,float32")]


@pytest.mark.slow
def test_a_grpo_step_samples_anew_and_changes_the_adapter(folder):
    step = grpo.make_step(folder, B=2, G=2, P=5, R=3)
    first, second = step(), step()
    assert first.completions.response.shape == (4, 3) and (first.completions.response_mask == 1).all()
    assert not np.array_equal(first.completions.prompt, second.completions.prompt)
    assert np.abs(first.advantage.reshape(2, 2).sum(axis=1)).max() < 1e-5 < np.abs(first.advantage).min()


@pytest.mark.slow
def test_shared_and_unshared_updates_have_one_gradient(folder):
    (row,) = grpo._updates(folder, P=7, R=3, G=2, repeats=2)
    assert row.target == 2.15 and row.limit == pytest.approx(1.54, abs=0.005)
    assert row.ours > 0 and row.peer > 0


@pytest.mark.slow
@pytest.mark.parametrize("suite", [rollout, grpo])
def test_without_peers_our_numbers_stand_alone(suite):
    first = suite.run(None, quick=True)[0]
    assert first.ours > 0 and first.peer is first.ratio is first.met is None
