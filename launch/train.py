"""Trains: `python -m launch.train --config=configs/grpo.py --workdir=runs/grpo` (also configs/sft.py).

Resumes what --workdir already holds. Each config file says what it needs and what to expect.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from launch import command
from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.source import make_dataset
from r2rec_jax.model.hf import save_params
from r2rec_jax.model.policy import load_policy
from r2rec_jax.pipeline.batches import batches, collate
from r2rec_jax.pipeline.pretrain import PretrainRows
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.runtime.workdir import claim
from r2rec_jax.train import loop
from r2rec_jax.train.jit import jit_step, to_devices
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.sft import sft_step
from r2rec_jax.train.state import TrainState


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    stages = {"pretrain": pretrain}
    if config.stage not in stages:
        raise UserError(f"stage {config.stage!r} is unknown: use one of {', '.join(stages)}")
    stages[config.stage](config, workdir, overwrite)


def pretrain(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    dataset = make_dataset(config.data)
    corpus = Corpus(dataset.interactions, dataset.catalog, build_graph(dataset))
    mesh = make_mesh(**config.mesh)
    policy = load_policy(config, mesh, config.seed)
    claim(workdir, config, overwrite)
    chat = corpus_tokenizer(corpus, config, workdir)

    c = config.train
    curriculum = config.corpus.curriculum
    rows = PretrainRows(
        corpus, chat, rows=c.steps * c.batch_size, seed=config.seed, curriculum=curriculum
    )
    widths = tuple(length for _, length, _ in curriculum)
    examples = batches(
        rows,
        batch_size=c.batch_size,
        seed=config.seed,
        shuffle=False,
        to_batch=lambda rows: collate(rows, (1,), widths),
    )
    state = supervised(config, workdir, policy, examples, mesh)
    save_params(
        workdir / "model",
        policy.model.config,
        state.trainable["params"],
        tokenizer=chat.to_transformers(),
        overwrite=True,
    )


def corpus_tokenizer(corpus: Corpus, config: ConfigDict, workdir: Path) -> Chat:
    """The tokenizer trained on a sample of the corpus, made once a workdir."""
    folder = workdir / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        rng = np.random.default_rng([config.seed, 1])
        sample = [corpus.document(rng, 20) for _ in range(config.corpus.tokenizer_documents)]
        texts = [f"{d.context}{d.text}{d.reasoning or ''}" for d in sample]
        tokenizer = train_tokenizer(texts, config.model.architecture.vocab_size)
        write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    return Chat(folder)


def supervised(config: ConfigDict, workdir: Path, policy, examples, mesh) -> TrainState:
    """Drives the cross-entropy step over an iterator of CompletionBatch."""
    optimizer, _ = make_optimizer(config, config.train.steps)
    state = TrainState.create(policy.trainable, optimizer)
    step = jit_step(
        lambda state, frozen, batch: sft_step(policy.model, optimizer, state, frozen, batch),
        state,
        policy.frozen,
        mesh,
    )
    phases = Phases()

    def advance(state, batch, _):
        with phases("update"):
            return step(state, policy.frozen, to_devices(batch, mesh))

    return loop.run(config, workdir, state, examples, advance, phases)


if __name__ == "__main__":
    command.run(main)
