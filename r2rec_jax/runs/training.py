"""Sets up each training stage from its config and passes it to the training loop."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.cli.required_inputs import check_items, require
from r2rec_jax.data import prepared
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.metrics.ranking_metrics import summarise
from r2rec_jax.model.architecture import load_config
from r2rec_jax.model.completion import completion_logprobs
from r2rec_jax.model.flops import Mfu
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.policy import Policy, load_policy, with_items
from r2rec_jax.pipeline.batches import batches, check_fit, collate, lengths_of
from r2rec_jax.pipeline.histories import Histories
from r2rec_jax.pipeline.llara import HybridExamples
from r2rec_jax.pipeline.packed_rows import Documents, PretrainRows
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.pipeline.tallrec import liking_examples
from r2rec_jax.pipeline.traces import Traces
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus
from r2rec_jax.prompts.moments import Moments
from r2rec_jax.prompts.train_tokenizer import title_tokenizer, train_tokenizer
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.rollout.completions import check_prompts, rank_users, summary
from r2rec_jax.rollout.engine import Engine, SamplingConfig
from r2rec_jax.runtime.checksum import of_arrays
from r2rec_jax.runtime.distributed import fetch, on_first
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh, to_devices
from r2rec_jax.runtime.metric_writer import StepLog
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.runtime.workdir import claim, require_same_inputs
from r2rec_jax.teachers.template import narration
from r2rec_jax.train import loop
from r2rec_jax.train.accumulate import check_parts, mapped
from r2rec_jax.train.experience import gather
from r2rec_jax.train.grpo import grpo_step
from r2rec_jax.train.jit import jit_step, place_state
from r2rec_jax.train.objective import objective
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.scoring import Scored, Scorer, means
from r2rec_jax.train.sft import sft_step
from r2rec_jax.train.state import TrainState, restore_trainable

SAMPLES, TOKENIZER = "samples.jsonl", "tokenizer.json"


def main(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive = loop.run) -> None:
    """Sets the stage up and hands it to `drive`: the training loop, or launch.profile's few steps."""
    stages = {"pretrain": pretrain, "sft": sft, "grpo": grpo, "tallrec": tallrec, "llara": llara}
    if config.stage not in stages:
        raise UserError(f"stage {config.stage!r} is unknown: use one of {', '.join(stages)}")
    stages[config.stage](config, workdir, overwrite, drive)


def pretrain(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Trains a full model from scratch, and exports it as a Hugging Face folder with the tokenizer: on text
    about a generated log (`corpus.kind` "documents"), or on the moments of a prepared one."""
    kinds = {"documents": _documents, "moments": _moments}
    c, curriculum = config.train, config.corpus.curriculum
    if config.corpus.kind not in kinds:
        raise UserError(f"corpus.kind {config.corpus.kind!r} is unknown: use one of {', '.join(kinds)}")
    text, make_tokenizer = kinds[config.corpus.kind](config)
    mesh = make_mesh(**config.mesh)
    policy, parts = load_policy(config, mesh, config.seed), _parts(config, mesh)
    folder = workdir / "tokenizer"
    made = None if not overwrite and (folder / TOKENIZER).exists() else make_tokenizer()
    most = policy.model.config.vocab_size
    if made and (tokens := made.get_vocab_size()) > most:
        raise UserError(
            f"the tokenizer has {tokens} tokens and model.architecture.vocab_size={most}: make it as large"
        )
    _claim(config, workdir, overwrite)
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
    state = _supervise(config, workdir, policy, examples, mesh, parts, drive)
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
    """What draws text about a generated log, given its tokenizer, and what makes that."""
    dataset = make_dataset(config.data)
    corpus = Corpus(dataset.interactions, dataset.catalog, build_graph(dataset))

    def make_tokenizer():
        rng = np.random.default_rng([config.seed, 1])
        sample = [corpus.document(rng, 20) for _ in range(config.corpus.tokenizer_documents)]
        texts = [f"{d.context}{d.text}{d.reasoning or ''}" for d in sample]
        return train_tokenizer(texts, config.model.architecture.vocab_size)

    return lambda chat: Documents(corpus, chat), make_tokenizer


def _moments(config: ConfigDict) -> tuple[Callable, Callable]:
    """The same for a prepared log."""
    require(config, "data")
    dataset = prepared.load(config.data.folder)
    words = wording_of(config.prompt.wording, dataset)
    # In memory, where the tokenizer has a token for each title anyway: each is read thousands of times.
    known = dataset.catalog
    lists = {name: list(getattr(known, name)) for name in ("title", "genres", "demographics")}
    catalog = dataclasses.replace(known, year=np.asarray(known.year), **lists)
    dataset = dataclasses.replace(dataset, catalog=catalog)
    moments = Moments(dataset, build_graph(dataset), config.prompt)
    narrate = functools.partial(narration, catalog=dataset.catalog, wording=words)

    def make_tokenizer():
        return title_tokenizer(dataset.catalog, words)

    return lambda chat: Histories(moments, chat, words, narrate), make_tokenizer


def sft(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Teaches a fresh adapter to write the teacher's traces."""
    require(config, "model", "traces")
    chat = Chat(config.model.folder)
    path = Path(config.annotate.folder) / "traces.jsonl"
    examples = Traces(path, chat).examples
    check_fit(examples, config.prompt.buckets, config.train.response_buckets, f"{path}: trace")
    _check_size(config, len(examples), f"traces of {path}")
    _imitate(config, workdir, overwrite, drive, examples)


def tallrec(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Teaches a fresh adapter to say whether a user will like an item."""
    require(config, "model", "data")
    chat = Chat(config.model.folder)
    dataset = prepared.load(config.data.folder)
    words, c = wording_of(config.prompt.wording, dataset), config.prompt
    users, questions = dataset.split.users["sft"], config.train.questions
    examples = liking_examples(dataset, users, words, chat, c, questions=questions, seed=config.seed)
    check_fit(examples, c.buckets, config.train.response_buckets, "question")
    _check_size(config, len(examples), f"questions to the SFT users of {config.data.folder}")
    _imitate(config, workdir, overwrite, drive, examples)


def llara(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Teaches a fresh adapter, and a projector of item vectors, to name the next item."""
    require(config, "model", "data", "items")
    dataset = prepared.load(config.data.folder)
    check_items(config, dataset)
    chat = Chat(config.model.folder, first_item=load_config(config.model.folder).vocab_size)
    users, c = dataset.split.users["sft"], config.train
    prompts = RankingPrompts(dataset, users, chat, config.prompt, config.seed)
    _check_size(config, len(users), f"SFT users of {config.data.folder}")
    examples = HybridExamples(prompts, c.steps * c.batch_size)
    # Each user once: another time the prompt is another, and shorter or as long; the response is the same.
    once = (examples[k] for k in range(min(len(users), len(examples))))
    check_fit(once, config.prompt.buckets, c.response_buckets, "example")
    _imitate(config, workdir, overwrite, drive, examples, hybrid=True)


def _imitate(
    config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive, source, hybrid: bool = False
) -> None:
    """Trains a fresh adapter on a source of {'prompt', 'response', 'mask'}; if `hybrid`, one in order, and
    with it a projector of items."""
    mesh = make_mesh(**config.mesh)
    policy, parts = load_policy(config, mesh, config.seed), _parts(config, mesh)
    if hybrid:
        policy = with_items(policy, config.model.item_table, mesh, config.seed)
    widths = config.prompt.buckets, config.train.response_buckets
    # With one bucket for all there is nothing to gain.
    similar = len(widths[0]) > 1 or len(widths[1]) > 1
    examples = batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        shuffle=not hybrid,
        to_batch=lambda rows: collate(rows, *widths),
        lengths=lengths_of(source) if similar and not hybrid else None,
        workers=config.data.workers,
        put=lambda batch: to_devices(batch, mesh),
    )
    _claim(config, workdir, overwrite)
    _supervise(config, workdir, policy, examples, mesh, parts, drive)


def grpo(config: ConfigDict, workdir: Path, overwrite: bool, drive: loop.Drive) -> None:
    """Goes on from the SFT adapter by group-relative rewards; that adapter, frozen, is the reference."""
    require(config, "model", "data", adapters={config.train.init: "sft"} if config.train.init else {})
    chat = Chat(config.model.folder)
    dataset = prepared.load(config.data.folder)
    mesh = make_mesh(**config.mesh)
    policy = load_policy(config, mesh, config.seed)
    optimizer = make_optimizer(config, config.train.steps * config.grpo.updates_per_rollout)
    reference = policy.trainable
    if config.train.init:
        reference = restore_trainable(config.train.init, policy.trainable, optimizer, config.restore, config)
    c, parts = config.grpo, _parts(config, mesh)
    settings, scorer = objective(config), Scorer(config, chat)
    sampling = SamplingConfig(**config.rollout, slots=c.slots)
    engine = Engine(policy.model, chat.end, sampling, mesh, chat.text)
    # One completion of each validation user: other shapes, and other programs anyway.
    one_each = dataclasses.replace(sampling, slots=config.evaluate.batch_size)
    validator = Engine(policy.model, chat.end, one_each, mesh, chat.text)

    def prompts_of(group):
        users, before = dataset.split.users[group], config.data.before_target_time
        return RankingPrompts(dataset, users, chat, config.prompt, config.seed, before_target_time=before)

    questions, held_out = prompts_of("grpo"), prompts_of("validation")
    _check_size(config, len(questions), f"GRPO users of {config.data.folder}")
    if config.train.best_metric and not len(held_out):
        raise UserError(
            f"{config.data.folder} has no validation users, whom train.best_metric="
            f"{config.train.best_metric} is of: prepare it with data.sizes.validation, or set "
            "train.best_metric to ''"
        )
    for prompts in (questions, held_out):
        check_prompts(prompts, sampling.max_tokens if sampling.constrained else None)
    examples = batches(
        questions,
        batch_size=config.train.batch_size,
        seed=config.seed,
        shuffle=True,
        to_batch=list,
        lengths=questions.widths() if len(config.prompt.buckets) > 1 else None,
        workers=config.data.workers,
    )
    _claim(config, workdir, overwrite)
    read = {"train.init": of_arrays(reference)} if config.train.init else {}
    on_first(lambda: require_same_inputs(workdir, read))
    # A copy: the state is donated to every step, the reference must outlive them all.
    state = place_state(TrainState.create(jax.tree.map(lambda x: x.copy(), reference), optimizer), mesh)
    frozen = {"base": policy.frozen, "reference": reference}
    update = jit_step(
        lambda state, frozen, batch: grpo_step(
            policy.model, optimizer, settings, state, frozen, batch, parts
        ),
        state,
        frozen,
        mesh,
    )

    @jax.jit
    def score(variables, batch):
        def logprobs(part):
            return completion_logprobs(policy.model, variables, part, temperature=settings.temperature)[0]

        return mapped(logprobs, batch, parts)

    phases, samples, at_best = Phases(), StepLog(workdir / SAMPLES), _mfu(config, policy, mesh)

    def advance(state, prompts, step):
        variables = {**policy.frozen, **state.trainable}
        seed = config.seed * 1_000_003 + step
        got = gather(engine, variables, prompts, chat, scorer, config, phases, seed=seed)
        batch = to_devices(got.batch, mesh)
        with phases("update"):
            if c.updates_per_rollout > 1:
                batch = batch.replace(old_logprobs=score(variables, batch.completions))
            skipped = 0.0
            for _ in range(c.updates_per_rollout):
                state, metrics = update(state, frozen, batch)
                skipped += metrics["train/skipped"]
            metrics["train/skipped"] = skipped
            _append_samples(samples, step, got.scored[: c.group], dataset.catalog.user_ids)
            # Waited for, so that each phase's seconds are its own; the next prompts are being prepared by
            # the iterator's threads, so all the device misses is a few milliseconds of handing them over.
            jax.block_until_ready(metrics)
        metrics |= got.metrics
        metrics["update/tokens_per_s"] = phases.rate(
            "update", c.updates_per_rollout * got.metrics["rollout/tokens"]
        )
        metrics["update/mfu"] = phases.rate(
            "update", c.updates_per_rollout * at_best.seconds_at_peak(batch.completions)
        )
        return state, metrics, batch

    def evaluate(state):
        variables = {**policy.frozen, **state.trainable}
        asked = [held_out[k] for k in range(len(held_out))]
        ranking = rank_users(validator, variables, asked, chat, config.prompt, seed=config.seed)
        judged = [one for _, (one,) in ranking]
        ranks = np.array([one.truth_rank for one in judged], np.int32)
        rates = summary(judged) | summarise(ranks) | means(scorer.pay(judged))
        return {f"validation/{name}": value for name, value in rates.items()}

    with scorer:
        judge = evaluate if len(held_out) else None
        drive(config, workdir, state, examples, advance, phases, judge, logs=(samples,))


def _supervise(
    config: ConfigDict, workdir: Path, policy: Policy, examples, mesh, parts, drive: loop.Drive
) -> TrainState:
    """Drives the cross-entropy step over an iterator of CompletionBatch on the devices."""
    optimizer = make_optimizer(config, config.train.steps)
    state = place_state(TrainState.create(policy.trainable, optimizer), mesh)
    step = jit_step(
        lambda state, frozen, batch: sft_step(
            policy.model, optimizer, state, frozen, batch, config.seed, parts
        ),
        state,
        policy.frozen,
        mesh,
    )
    phases, at_best = Phases(), _mfu(config, policy, mesh)

    def advance(state, batch, _):
        with phases("update"):
            state, metrics = step(state, policy.frozen, batch)
        return state, metrics | {"train/at_best_s": at_best.seconds_at_peak(batch)}, batch

    return drive(config, workdir, state, examples, advance, phases)


def _claim(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    """A run that has ended goes on where `train.steps` is raised."""
    on_first(lambda: claim(workdir, config, overwrite, grows="train.steps"))


def _check_size(config: ConfigDict, there: int, what: str) -> None:
    if there < config.train.batch_size:
        size = config.train.batch_size
        raise UserError(f"train.batch_size={size} is more than the {there} {what}: lower it")


def _mfu(config: ConfigDict, policy: Policy, mesh) -> Mfu:
    reference = config.stage == "grpo" and config.grpo.beta > 0
    frozen = "lora" in policy.trainable
    return Mfu(policy.model.config, mesh, dtype=config.model.dtype, frozen=frozen, reference=reference)


def _parts(config: ConfigDict, mesh) -> int:
    check_parts(config.train.batch_size, config.train.micro_batches, mesh)
    return config.train.micro_batches


def _append_samples(samples: StepLog, step: int, group: list[Scored], user_ids: Sequence[str]) -> None:
    """Adds the best and the worst completion of the step's first group: what learning looks like."""
    paid = sorted((one for one in group if not one.fault), key=lambda one: -one.reward)
    for one in paid[:1] + paid[-1:]:
        user = one.judged.prompt.record.user
        line = {
            "user": user,
            "user_id": user_ids[user],
            "reward": round(one.reward, 4),
            "parts": {name: round(value, 4) for name, value in one.parts.items()},
            "truth_rank": one.judged.truth_rank,
            "reasoning": one.judged.reasoning,
            "answer": one.judged.answer,
        }
        samples.append(step, line)
