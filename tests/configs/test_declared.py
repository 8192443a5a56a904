"""Declarations of every config: all fields have one, every default is allowed, anything else is one line."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import combinations, declared
from r2rec_jax.baselines.config import BaselineConfig
from r2rec_jax.chains.companions import SELECTIONS
from r2rec_jax.chains.sampler import RECENT
from r2rec_jax.cli import command
from r2rec_jax.cli.overrides import flatten
from r2rec_jax.data.protocol import SPLITS
from r2rec_jax.model import cache
from r2rec_jax.model.architecture import MOST_LAYERS
from r2rec_jax.rollout.decoder_weights import WEIGHTS
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import About, Section
from r2rec_jax.runtime.ranges import Choice, Each, Number, Row, Text
from r2rec_jax.train.state import WHICH
from tests.configs.test_configs import BUILDS, FOLDER, PLAIN, PRESETS, build
from tests.fuzz.config import fresh_flags

ALL = [*BUILDS, *((name, None) for name in PLAIN)]


def of(name: str, preset: str | None = None) -> dict[str, About]:
    return declared.abouts(build(name, preset))


@pytest.mark.parametrize(("name", "preset"), ALL)
def test_every_field_of_every_config_is_declared_and_holds_its_own_range(name, preset):
    config = build(name, preset)
    fields, abouts = flatten(config), declared.abouts(config)
    # A mapping of texts by names of the user's.
    assert {field for field in fields if not field.startswith("trained.")} == abouts.keys()
    for field, value in fields.items():
        members = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, int | float | tuple) and not isinstance(one, bool) for one in members):
            assert abouts[field].range, f"{field} = {value} has no range"
    declared.check_ranges(config)
    combinations.check(config)


def sections(kind: type[Section]) -> set[type[Section]]:
    """A declaration and all within it, their variants included."""
    found = {kind}
    for one in (*kind.__subclasses__(), *(about.section for about in kind.abouts().values()), kind.OTHERS):
        found |= sections(one) if one else set()
    return found


@pytest.mark.parametrize("kind", sorted(sections(declared.Run), key=lambda kind: kind.__name__))
def test_every_declaration_explains_itself(kind):
    for name, about in kind.abouts().items():
        assert about.section or (about.help[0].isupper() or about.help.startswith("int8")), name
        assert about.section or about.help.endswith("."), name
        assert "\n" not in about.help


def test_every_declared_field_is_that_of_some_config():
    held = {id(about) for name, preset in ALL for about in of(name, preset).values()}
    for kind in sections(declared.Run) - {BaselineConfig}:
        if not kind.__subclasses__():
            for name, about in kind.abouts().items():
                assert about.section or name == "trained" or id(about) in held, f"{kind.__name__}.{name}"


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("restore", WHICH),
        ("prompt.chain_selection", (*SELECTIONS, RECENT)),
        ("rollout.weights", WEIGHTS),
        ("rollout.cache", cache.KINDS),
    ],
)
def test_choices_are_those_of_the_code(field, code):
    assert set(of("grpo")[field].range.names) == set(code)


def test_other_bounds_are_those_of_the_code():
    assert of("pretrain_tiny")["model.architecture.num_hidden_layers"].range.high == MOST_LAYERS
    assert {f"data.sizes.{group}" for group in SPLITS} <= of("grpo").keys()


def test_the_section_decides_what_a_name_may_be():
    found = of("reproduce", "ml1m_mini")
    assert found["baselines.ease.l2"].range.above and not found["baselines.ngcf.l2"].range.above
    assert found["studies.two_chains.chains"] is found["prompt.chains"]
    assert found["variants.r2rec, no interaction chain.prompt.chains"] is found["prompt.chains"]
    assert found["grpo.train.batch_size"] is not found["sft.train.batch_size"]
    assert found["model.folder"].range is None


def test_config_files_import_no_jax():
    """--help and flags wait for them."""
    modules = ", ".join(f"configs.{name}" for name in (*PRESETS, *PLAIN))
    code = f"import sys, {modules}; print(sorted({{'jax', 'numpy', 'flax'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


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
    (f"{FOLDER}/{name}.py" + (f":{preset}" if preset else ""), field, about.range)
    for name, preset in (
        ("grpo", "quickstart"),
        ("eval", "compared"),
        ("baselines", None),
        ("pretrain_tiny", None),
    )
    for field, about in of(name, preset).items()
    if about.range and " " not in field
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
@given(st.sampled_from(FIELDS).flatmap(lambda one: st.tuples(st.just(one), outside(one[2]))))
def test_a_value_out_of_its_range_is_one_line_with_field_value_and_range(case):
    (config, field, allowed), value = case
    with pytest.raises(UserError) as caught:
        parsed(f"--config={config}", f"--config.{field}={value}")
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"--config.{field}={value!r}: use ") and str(allowed) in line


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
        ("grpo:quickstart", ["reward.step_weight=0", "reward.rank_weight=0"], "at least one reward"),
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
        ("sft:quickstart", ["train.best_metric=validation/reward"], "this stage has no evaluation"),
        (
            "baselines",
            ["sasrec.train.best_metric=", "sasrec.train.patience=0"],
            "--config.sasrec.train.best_metric='': use validation/ndcg@3",
        ),
        ("baselines", ["sasrec.heads=3"], "--config.sasrec.width=64: use a multiple of heads=3"),
        ("baselines", ["caser.train.evaluate_every=0"], "--config.caser.train.evaluate_every=0: use a whole"),
        ("pretrain_tiny", ["corpus.curriculum=((0.5, 64, 4),)"], "1.0 as the fraction of the last part"),
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
