"""Writes validated teacher traces for the SFT users."""

from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.cli.required_inputs import require
from r2rec_jax.data import prepared
from r2rec_jax.model.policy import load_policy
from r2rec_jax.pipeline.prompt_source import dropped_message
from r2rec_jax.prompts.chat import Chat, Unmeasured
from r2rec_jax.prompts.wording import wording_of
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.runtime.workdir import claim
from r2rec_jax.teachers.annotator import COUNTS, TRACES, annotate
from r2rec_jax.teachers.config import TEACHERS
from r2rec_jax.teachers.journal import Journal
from r2rec_jax.teachers.local import LocalTeacher
from r2rec_jax.teachers.question import questions
from r2rec_jax.teachers.request import request_text
from r2rec_jax.teachers.server import ServerTeacher
from r2rec_jax.teachers.template import TemplateTeacher
from r2rec_jax.teachers.validator import Validator
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import restore_trainable


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    c = config.annotate
    if c.teacher not in TEACHERS:
        raise UserError(f"annotate.teacher {c.teacher!r}: use one of {', '.join(TEACHERS)}")
    if c.attempts < 1:
        raise UserError(f"annotate.attempts {c.attempts}: use at least 1")
    if c.teacher != "template" and not config.prompt.reasoning:
        raise UserError(
            "prompt.reasoning is off, so a teacher has no reasoning to write: use annotate.teacher=template"
        )
    adapter = c.teacher == "local" and c.local.init
    # Templates need no model. Its tokenizer, if present, checks that prompts and traces fit their buckets.
    folder = config.model.folder
    measured = c.teacher != "template" or bool(folder and Path(folder).exists())
    inputs = ("data", "model") if measured else ("data",)
    require(config, *inputs, adapters={adapter: "sft"} if adapter else {})
    chat = Chat(config.model.folder) if measured else Unmeasured()
    if not measured:
        logging.warning(
            "no tokenizer at model.folder=%r: the lengths of prompts and traces are checked only when SFT "
            "starts",
            folder,
        )
    dataset = prepared.load(config.data.folder)
    words = wording_of(config.prompt.wording, dataset)
    before = config.data.before_target_time
    found = questions(dataset, chat, config.prompt, c.tasks, seed=config.seed, before_target_time=before)
    if not found:
        raise UserError(f"{config.data.folder} has no SFT users: prepare it with data.sizes.sft")
    validator = Validator(dataset.catalog, words, chat, config.prompt, c.max_tokens)
    teacher = _teacher(config, chat, dataset.catalog, words)
    claim(workdir, config, overwrite)
    journal, of_server = Journal(workdir), {}
    if c.teacher == "openai":
        teacher.server.spent = journal.cost
        of_server = {"is_model": teacher.server.is_model}

    def text_of(question, refused):
        if not c.hint or c.teacher == "template":
            return question.prompt
        return request_text(question, dataset.catalog, words, config.prompt, refused)

    counts = annotate(found, teacher, text_of, validator, journal, c.attempts, **of_server)
    logging.info(
        "%d of %d traces accepted, in %s; %d replies rejected %s; %d chains and %d likes did not fit; "
        "%d + %d tokens cost %.4g; all counts in %s",
        counts["accepted"],
        counts["questions"],
        workdir / TRACES,
        sum(counts["refused"].values()),
        counts["refused"],
        counts["dropped_chains"],
        counts["dropped_likes"],
        counts["prompt_tokens"],
        counts["completion_tokens"],
        counts["cost"],
        workdir / COUNTS,
    )
    if left_out := dropped_message(counts["dropped_chains"], counts["dropped_likes"], config.prompt.buckets):
        logging.warning("%s, in total", left_out)


def _teacher(config: ConfigDict, chat: Chat, catalog, words):
    c = config.annotate
    if c.teacher == "openai":
        return ServerTeacher(c, spent=0.0)
    if c.teacher == "local":
        policy = load_policy(config.model, config.lora, make_mesh(**config.mesh), config.seed)
        adapter = policy.trainable
        if c.local.init:
            adapter = restore_trainable(
                c.local.init,
                adapter,
                make_optimizer(config.optimizer, steps=1),
                config.restore,
                {"model": config.model, "lora": config.lora},
            )
        variables = {**policy.frozen, **adapter}
        return LocalTeacher(c, chat, policy.model, variables, buckets=config.prompt.buckets, seed=config.seed)
    return TemplateTeacher(catalog, words, config.prompt)
