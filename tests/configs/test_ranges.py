"""Ranges of fields and combinations of them: every default is allowed, everything else is one line."""

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import combinations, ranges
from configs.ranges import RANGES, Choice, Each, Number, Row, Text, range_of
from r2rec_jax.chains.companions import SELECTIONS
from r2rec_jax.chains.sampler import RECENT
from r2rec_jax.cli import command
from r2rec_jax.cli.overrides import flatten
from r2rec_jax.data.negatives import NEGATIVES
from r2rec_jax.data.protocol import SPLITS
from r2rec_jax.model import llama, lora
from r2rec_jax.model.architecture import MOST_LAYERS
from r2rec_jax.prompts.ranking_prompt import ANSWERS
from r2rec_jax.rank.policy_ranker import MODES
from r2rec_jax.rollout.weights import WEIGHTS
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train import objective
from r2rec_jax.train.state import WHICH
from tests.configs.test_configs import BUILDS, FOLDER, PLAIN, build
from tests.fuzz.config import fresh_flags


@pytest.mark.parametrize(("name", "preset"), [*BUILDS, *((name, None) for name in PLAIN)])
def test_every_number_of_every_config_has_a_range_that_its_default_keeps(name, preset):
    config = build(name, preset)
    fields = flatten(config)
    for field, value in fields.items():
        members = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, int | float | tuple) and not isinstance(one, bool) for one in members):
            assert range_of(field), f"{field} = {value} has no range"
    ranges.check(fields)
    combinations.check(config)


def test_every_range_is_that_of_a_field():
    found = {field for name, preset in BUILDS for field in flatten(build(name, preset))}
    found |= {field for name in PLAIN for field in flatten(build(name))}
    # Sections whose members are named by their users.
    for key in RANGES:
        assert any(field == key or field.endswith(f".{key}") for field in found), key


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("lora.targets", lora.LINEAR_LAYERS),
        ("model.remat", llama.REMAT),
        ("restore", WHICH),
        ("prompt.answer", ANSWERS),
        ("prompt.chain_selection", (*SELECTIONS, RECENT)),
        ("systems.sft.mode", MODES),
        ("rollout.weights", WEIGHTS),
        ("grpo.aggregation", objective.AGGREGATIONS),
        ("grpo.ratio", objective.RATIOS),
        ("grpo.kl", objective.KLS),
        ("data.negatives", NEGATIVES),
    ],
)
def test_choices_are_those_of_the_code(field, code):
    allowed = range_of(field)
    assert set((allowed.of if isinstance(allowed, Each) else allowed).names) == set(code)


def test_other_bounds_are_those_of_the_code():
    assert range_of("model.architecture.num_hidden_layers").high == MOST_LAYERS
    assert all(range_of(f"data.sizes.{group}") for group in SPLITS)


def test_the_longest_end_counts():
    assert range_of("sft.train.steps") is RANGES["train.steps"]
    assert range_of("baselines.ease.l2") is RANGES["ease.l2"]
    assert range_of("baselines.ngcf.l2") is RANGES["l2"]
    assert range_of("systems.no chains.prompt.chains") is RANGES["chains"]
    assert range_of("model.folder") is None


def outside(allowed):
    """Values that a range must refuse, as they are written in a flag."""
    match allowed:
        case Number(low=low, high=high, whole=True):
            below = st.integers(int(low) - 10**6, int(low) - 1)
            return st.one_of(below, st.integers(int(high) + 1, 10**30)).filter(lambda v: v != allowed.off)
        case Number(low=low, high=high):
            wrong = st.one_of(
                st.floats(max_value=low, exclude_max=not allowed.above),
                st.floats(min_value=high, exclude_min=not allowed.below),
                st.just(math.nan),
            )
            return wrong.filter(lambda v: v != allowed.off)
        case Choice(names=names):
            return st.text("abcxyz", min_size=1).filter(lambda v: v not in names)
        case Each(of=Number() | Choice() as of):
            # Python's literals know no nan and no inf.
            return st.tuples(outside(of).filter(lambda v: isinstance(v, str) or math.isfinite(v)))
        case Each(of=Text()):
            return st.just(("",))
        case Each(of=Row()):
            return st.just(((2.0, 1, 1),))
        case Row():
            return st.sampled_from([(3, 2), (0, 2), (1,), (1, 2, 3)])
        case Text():
            return st.sampled_from(["5", "1:x", "a:b"])
    raise AssertionError(allowed)


FIELDS = [
    (f"{FOLDER}/{name}.py" + (f":{preset}" if preset else ""), field)
    for name, preset in (
        ("grpo", "quickstart"),
        ("eval", "compared"),
        ("baselines", None),
        ("pretrain_tiny", None),
    )
    for field in flatten(build(name, preset))
    if range_of(field) and " " not in field
]


def parsed(*arguments: str, **options):
    """The config of a command line."""
    argv = ["command", "--workdir=w", *arguments]
    before = command.FLAGS, sys.argv
    command.FLAGS, sys.argv = fresh_flags(), argv
    try:
        command.parse(argv, **options)
        return command.FLAGS.config
    finally:
        command.FLAGS, sys.argv = before


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS).flatmap(lambda one: st.tuples(st.just(one), outside(range_of(one[1])))))
def test_a_value_out_of_its_range_is_one_line_with_field_value_and_range(case):
    (config, field), value = case
    with pytest.raises(UserError) as caught:
        parsed(f"--config={config}", f"--config.{field}={value}")
    line = str(caught.value)
    assert (
        "\n" not in line
        and line.startswith(f"--config.{field}={value!r}: use ")
        and str(range_of(field)) in line
    )


@pytest.mark.parametrize(
    ("config", "flags", "named"),
    [
        ("grpo:quickstart", ["train.batch_size=0"], "--config.train.batch_size=0: use a whole number from 1"),
        (
            "grpo:quickstart",
            ["seed=99999999999999"],
            "--config.seed=99999999999999: use a whole number from 0",
        ),
        ("grpo:quickstart", ["grpo.group=1"], "--config.grpo.group=1: use a whole number from 2"),
        ("grpo:quickstart", ["rollout.temperature=0"], "rollout.temperature=0.0: use a temperature above 0"),
        ("grpo:quickstart", ["rollout.top_k=1"], "rollout.top_k=1: use 0 or 2 and more"),
        ("grpo:quickstart", ["rollout.min_p=1"], "rollout.min_p=1.0: use less than 1"),
        ("grpo:quickstart", ["reward.step_weight=0", "reward.rank_weight=0"], "nothing is paid for"),
        (
            "grpo:quickstart",
            ["reward.extra=a:b", "reward.extra_weights=(1.0, 2.0)"],
            "each of the 1 functions",
        ),
        (
            "grpo:quickstart",
            ["grpo.dual_clip=1.1"],
            "grpo.dual_clip=1.1: use more than 1 + grpo.clip_high=0.2",
        ),
        ("grpo:quickstart", ["train.micro_batches=5"], "a multiple of train.micro_batches=5"),
        (
            "grpo:quickstart",
            ["train.best_metric=", "train.patience=2"],
            "--config.train.patience=2: use 0, or",
        ),
        (
            "grpo:quickstart",
            ["train.best_metric=reward"],
            "train.best_metric='reward': use one of validation/rew",
        ),
        ("grpo:quickstart", ["profile.steps=100:105"], "FIRST from 1 to train.steps=90"),
        ("grpo:quickstart", ["profile.steps=7:7"], "LAST above it"),
        ("sft:quickstart", ["train.best_metric=validation/reward"], "this stage evaluates nothing"),
        (
            "baselines",
            ["sasrec.train.best_metric=", "sasrec.train.patience=0"],
            "--config.sasrec.train.best_metric='': use validation/ndcg@3",
        ),
        ("baselines", ["sasrec.heads=3"], "--config.sasrec.width=64: use a multiple of heads=3"),
        ("baselines", ["caser.train.evaluate_every=0"], "--config.caser.train.evaluate_every=0: use a whole"),
        ("pretrain_tiny", ["corpus.curriculum=((0.5, 64, 4),)"], "1.0 as the last part's fraction"),
        (
            "pretrain_tiny",
            ["corpus.curriculum=((1.0, 4096, 4),)"],
            "rows of up to max_position_embeddings=2048",
        ),
        (
            "reproduce:quickstart",
            ["grpo.rollout.temperature=0"],
            "--config.grpo.rollout.temperature=0.0: use",
        ),
        (
            "reproduce:quickstart",
            ["data.sizes.validation=0"],
            "--config.data.sizes.validation=0: use 1 or more",
        ),
        ("reproduce:quickstart", ["data.sizes.grpo=15"], "--config.data.sizes.grpo=15: use 16 or more"),
        (
            "grpo:quickstart",
            ["rollout.constrained=True", "rollout.stop=('>',)"],
            "--config.rollout.stop=('>',): use ()",
        ),
        (
            "eval:quickstart",
            ["systems.sft.mode=constrained", "rollout.stop=('.',)"],
            "--config.rollout.stop=('.',): use ()",
        ),
        ("reproduce:ml1m_mini", ["seeds=()", "policy_seeds=()"], "--config.seeds=(): use one seed or more"),
    ],
)
def test_what_makes_no_run_is_refused_before_anything_runs(config, flags, named):
    name, _, preset = config.partition(":")
    path = f"--config={FOLDER}/{name}.py" + (f":{preset}" if preset else "")
    with pytest.raises(UserError) as caught:
        parsed(path, *(f"--config.{flag}" for flag in flags))
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_what_switches_something_off_is_allowed():
    flags = ("grpo.dual_clip=0", "grpo.beta=0", "rollout.top_k=0", "mesh.data=-1", "train.patience=0")
    config = parsed(f"--config={FOLDER}/grpo.py:quickstart", *(f"--config.{flag}" for flag in flags))
    assert config.grpo.beta == 0 and config.mesh.data == -1
