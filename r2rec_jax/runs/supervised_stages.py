"""The stages that train by cross-entropy: pretraining, SFT, TALLRec and LLaRA."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.cli.required_inputs import check_items, require
from r2rec_jax.data import prepared
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.model.architecture import load_config
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.policy import Policy, load_policy, with_items
from r2rec_jax.pipeline.batches import batches, check_fit, collate, lengths_of
from r2rec_jax.pipeline.histories import Histories
from r2rec_jax.pipeline.llara import LLaRAExamples
from r2rec_jax.pipeline.packed_rows import Documents, PretrainRows
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.pipeline.tallrec import tallrec_examples
from r2rec_jax.pipeline.traces import Traces
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.train_tokenizer import title_tokenizer, train_tokenizer
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.runs.training_setup import check_size, claim_run, micro_batches, model_flops, start
from r2rec_jax.runtime.distributed import fetch, on_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh, to_devices
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.teachers.template import narration
from r2rec_jax.train import loop
from r2rec_jax.train.compile import place_state
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import TrainState
from r2rec_jax.train.supervised import SupervisedStep, compile_update

TOKENIZER = "tokenizer.json"


def pretrain(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Trains a full model from scratch and exports it with its tokenizer as a Hugging Face folder.

    `corpus.kind` is "documents", text about a generated log, or "moments", the moments of a prepared log.
    """
    kinds = {"documents": _documents, "moments": _moments}
    c, curriculum = config.train, config.corpus.curriculum
    if config.corpus.kind not in kinds:
        raise UserError(f"corpus.kind {config.corpus.kind!r} is unknown: use one of {', '.join(kinds)}")
    text, make_tokenizer = kinds[config.corpus.kind](config)
    mesh = make_mesh(**config.mesh)
    policy, parts = load_policy(config.model, config.lora, mesh, config.seed), micro_batches(config, mesh)
    folder = workdir / "tokenizer"
    made = None if not overwrite and (folder / TOKENIZER).exists() else make_tokenizer()
    vocabulary = policy.model.config.vocab_size
    if made and (tokens := made.get_vocab_size()) > vocabulary:
        raise UserError(
            f"the tokenizer has {tokens} tokens but model.architecture.vocab_size={vocabulary}: "
            "raise it to that number"
        )
    claim_run(config, workdir, overwrite)
    if made:
        on_first(lambda: write_atomic(folder / TOKENIZER, made.to_str(pretty=True)))
    chat = Chat(folder)
    count = c.steps * c.batch_size
    rows = PretrainRows(text(chat), chat.begin, rows=count, seed=config.seed, curriculum=curriculum)
    widths = tuple(length for _, length, _ in curriculum)
    examples = batches(
        rows,
        batch_size=c.batch_size,
        seed=config.seed,
        shuffle=False,
        to_batch=lambda rows: collate(rows, (1,), widths),
        workers=config.data.workers,
        put=lambda batch: to_devices(batch, mesh),
    )
    state = supervise(config, workdir, policy, examples, mesh, parts, drive)
    params = fetch(state.trainable["params"])
    on_first(
        lambda: save_params(
            workdir / "model",
            policy.model.config,
            params,
            tokenizer=chat.to_transformers(),
            overwrite=True,
        )
    )


def _documents(config: ConfigDict) -> tuple[Callable, Callable]:
    """(chat -> documents about a generated log, a function that trains the tokenizer)."""
    dataset = make_dataset(config.data)
    corpus = Corpus(dataset.interactions, dataset.catalog, build_graph(dataset))

    def make_tokenizer():
        rng = np.random.default_rng([config.seed, 1])
        sample = [corpus.document(rng, 20) for _ in range(config.corpus.tokenizer_documents)]
        texts = [f"{d.context}{d.text}{d.reasoning or ''}" for d in sample]
        return train_tokenizer(texts, config.model.architecture.vocab_size)

    return lambda chat: Documents(corpus, chat), make_tokenizer


def _moments(config: ConfigDict) -> tuple[Callable, Callable]:
    """(chat -> histories of a prepared log, a function that makes the tokenizer)."""
    require(config, "data")
    dataset = prepared.load(config.data.folder)
    words = wording_of(config.prompt.wording, dataset)
    # The catalog is copied into memory, because training reads each title thousands of times.
    mapped = dataset.catalog
    lists = {name: list(getattr(mapped, name)) for name in ("title", "genres", "demographics")}
    catalog = dataclasses.replace(mapped, year=np.asarray(mapped.year), **lists)
    dataset = dataclasses.replace(dataset, catalog=catalog)
    moments = Moments(dataset, build_graph(dataset), config.prompt)
    narrate = functools.partial(narration, catalog=dataset.catalog, wording=words)

    def make_tokenizer():
        return title_tokenizer(dataset.catalog, words)

    return lambda chat: Histories(moments, chat, words, narrate), make_tokenizer


def sft(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Trains a fresh adapter on the teacher's traces."""
    require(config, "model", "traces")
    chat = Chat(config.model.folder)
    path = Path(config.annotate.folder) / "traces.jsonl"
    examples = Traces(path, chat).examples
    check_fit(examples, config.prompt.buckets, config.train.response_buckets, f"{path}: trace")
    check_size(config, len(examples), f"traces of {path}")
    train_adapter(config, workdir, overwrite, drive, examples)


def tallrec(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Trains a fresh adapter to answer Yes or No: whether a user will like an item."""
    require(config, "model", "data")
    chat = Chat(config.model.folder)
    dataset = prepared.load(config.data.folder)
    words, c = wording_of(config.prompt.wording, dataset), config.prompt
    users, questions = dataset.split.users["sft"], config.train.questions
    examples = tallrec_examples(dataset, users, words, chat, c, questions=questions, seed=config.seed)
    check_fit(examples, c.buckets, config.train.response_buckets, "question")
    check_size(config, len(examples), f"questions to the SFT users of {config.data.folder}")
    train_adapter(config, workdir, overwrite, drive, examples)


def llara(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Trains a fresh adapter, and a projector of item vectors, to name the next item."""
    require(config, "model", "data", "items")
    dataset = prepared.load(config.data.folder)
    check_items(config.model.item_table, dataset, config.data.folder)
    chat = Chat(config.model.folder, first_item=load_config(config.model.folder).vocab_size)
    users, c = dataset.split.users["sft"], config.train
    prompts = RankingPrompts(dataset, users, chat, config.prompt, config.seed)
    check_size(config, len(users), f"SFT users of {config.data.folder}")
    examples = LLaRAExamples(prompts, c.steps * c.batch_size)
    # One example per user: later examples of a user have the same response and a prompt that is not longer.
    once = (examples[k] for k in range(min(len(users), len(examples))))
    check_fit(once, config.prompt.buckets, c.response_buckets, "example")
    train_adapter(config, workdir, overwrite, drive, examples, hybrid=True)


def train_adapter(
    config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive, source, hybrid: bool = False
) -> None:
    """Trains a fresh adapter on a source of {'prompt', 'response', 'mask'}.

    With `hybrid` it also trains a projector of item vectors, and keeps the order of the source.
    """
    mesh = make_mesh(**config.mesh)
    policy, parts = load_policy(config.model, config.lora, mesh, config.seed), micro_batches(config, mesh)
    if hybrid:
        policy = with_items(policy, config.model.item_table, mesh, config.seed)
    widths = config.prompt.buckets, config.train.response_buckets
    # Grouping by length helps only if there are several buckets.
    by_length = len(widths[0]) > 1 or len(widths[1]) > 1
    examples = batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        shuffle=not hybrid,
        to_batch=lambda rows: collate(rows, *widths),
        lengths=lengths_of(source) if by_length and not hybrid else None,
        workers=config.data.workers,
        put=lambda batch: to_devices(batch, mesh),
    )
    claim_run(config, workdir, overwrite)
    supervise(config, workdir, policy, examples, mesh, parts, drive)


def supervise(
    config: ConfigDict, workdir: Path, policy: Policy, examples, mesh, parts: int, drive: loop.Drive
) -> TrainState:
    """Trains with the supervised step on an iterator of CompletionBatch; returns the final state."""
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    state = place_state(TrainState.create(policy.trainable, optimizer), mesh)
    step = SupervisedStep(
        frozen=policy.frozen,
        update=compile_update(
            policy.model, optimizer, state, policy.frozen, mesh, seed=config.seed, parts=parts
        ),
        mfu=model_flops(config, policy, mesh),
        phases=Phases(),
    )
    return start(drive, config, workdir, state, examples, step)
