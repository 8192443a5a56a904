"""R2Rec-mini's road, from a log to its table, in sizes that take seconds."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs import reproduce as reproduce_config
from r2rec_jax.data import prepared
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.runs import reproduction
from r2rec_jax.runtime.errors import UserError
from tests.launch.road import lines

MODEL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
MODEL |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 704}


def config(**changes):
    c = reproduce_config.get_config("ml1m_mini")
    c.data.update({"source": "generated", "generated_users": 90})
    c.data.sizes.update({"sft": 8, "grpo": 6, "validation": 4, "evaluation": 10})
    c.baselines.systems = ("popularity",)
    c.pretrain.model.architecture.update(MODEL)
    c.pretrain.corpus.curriculum = ((0.5, 48, 0), (1.0, 144, 20))
    c.pretrain.train.update({"steps": 16, "batch_size": 4, "log_every": 1})
    c.sft.train.update({"steps": 2, "batch_size": 4})
    c.grpo.train.update({"steps": 1, "batch_size": 2, "evaluate_every": 1})
    c.grpo.grpo.group = 2
    for section in (c.grpo, c.eval):
        section.evaluate.batch_size = 10
        section.rollout.update({"max_tokens": 8, "chunk": 4})
    for name in set(c.variants) - {"r2rec without rl", "r2rec, answers constrained"}:
        del c.variants[name]
    for name in set(c.studies) - {"uniform_chains"}:
        del c.studies[name]
    c.seeds = c.policy_seeds = (0,)
    c.update(changes)
    return c


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("mini") / "run"
    reproduction.main(config(), workdir, False)
    return workdir


def test_the_table_has_every_system(done):
    rows = {row["system"]: row for row in json.loads((done / "mini.json").read_text())["rows"]}
    studied = "r2rec without rl, uniform chains"
    ours = ["r2rec without rl", "r2rec, answers constrained", "r2rec"]
    assert list(rows) == ["popularity", studied, *ours]
    assert rows["r2rec, answers constrained"]["valid_rate"] == 1.0
    assert all(0 <= row["hr@1"] <= 1 and row["users"] == 10 for row in rows.values())


def test_a_study_trains_and_asks_with_prompts_of_its_own(done):
    """Uniform chains are others than the latest, and nothing else in the prompts differs."""
    asked = [
        json.loads((done / "seed0" / f"annotate{name}" / "traces.jsonl").read_text().splitlines()[0])
        for name in ("", "_uniform_chains")
    ]
    prompts = [trace["prompt"].splitlines() for trace in asked]
    latest, uniform = prompts
    assert latest[:2] == uniform[:2] and latest[-2:] == uniform[-2:] and latest != uniform
    used = json.loads((done / "seed0" / "sft_uniform_chains" / "config.json").read_text())
    assert used["prompt"]["chain_selection"] == "uniform"


def test_the_model_is_what_the_tokenizer_needs(done):
    dataset, chat = prepared.load(done / "seed0" / "data"), Chat(done / "pretrain" / "model")
    assert len(chat.encode(f" {dataset.catalog.title[3]} ({dataset.catalog.year[3]})")) == 1
    written = json.loads((done / "pretrain" / "model" / "config.json").read_text())
    assert {name: written[name] for name in MODEL} == MODEL


def test_pretraining_learns(done):
    losses = [row["train/loss"] for row in lines(done / "pretrain", "metrics.jsonl")]
    assert len(losses) == 16 and np.isfinite(losses).all()
    # A model that knows nothing: every token of the vocabulary alike.
    assert losses[0] == pytest.approx(np.log(MODEL["vocab_size"]), rel=0.1)
    # Histories alone, in the first half: batches differ by .01, and the rate is warm by then.
    assert max(losses[5:8]) < losses[0] - 0.05


def test_a_model_that_has_seen_the_truths_of_a_seed_is_refused(done):
    """Generated logs differ from seed to seed, and so does what they hold out."""
    with pytest.raises(UserError, match=r"seed3/data holds out other ratings than .*seed0/data"):
        reproduction.main(config(seeds=(0, 3)), done, False)
