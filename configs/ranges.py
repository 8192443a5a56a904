"""What every field of a config may be: checked as soon as flags are read, shown by --help.

A field is found by the end of its dotted name, the longest that is listed, since sections recur under other
names: `train.steps` is also that of `sft.train` and of `sasrec.train`. Text that names a file, a column or a
model is free. Nothing here imports JAX: the choices are those of the code, which a test compares.
"""

import dataclasses
import itertools
import re

from r2rec_jax.runtime.errors import UserError, shown

MOST = 2**31 - 1  # JAX counts in 32 bits
LARGEST = 1e30  # float32 has room for a few products more
SEEDS = 2**32 - 1  # JAX's keys and grain's shuffles take 32 bits


@dataclasses.dataclass(frozen=True)
class Number:
    """Numbers from `low` to `high`. above, below: without that end. off: one more, outside."""

    low: float
    high: float
    whole: bool = False
    above: bool = False
    below: bool = False
    off: float | None = None

    def allows(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if self.off is not None and value == self.off:
            return True
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        high = str(int(self.high)) if self.whole else f"{self.high:g}"
        text = f"{kind} {'above' if self.above else 'from'} {self.low:g} to {'less than ' * self.below}{high}"
        return text if self.off is None else f"{text}, or {self.off:g}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few texts."""

    names: tuple[str, ...]

    def allows(self, value: object) -> bool:
        return isinstance(value, str) and value in self.names

    def __str__(self) -> str:
        return f"one of {', '.join(name or repr('') for name in self.names)}"


@dataclasses.dataclass(frozen=True)
class Text:
    """A text that matches a pattern, which `like` describes."""

    pattern: str
    like: str

    def allows(self, value: object) -> bool:
        return isinstance(value, str) and bool(re.fullmatch(self.pattern, value))

    def __str__(self) -> str:
        return self.like


@dataclasses.dataclass(frozen=True)
class Each:
    """A tuple whose members all are `of` that. fewest: of them. ascending: each above the one before, so that
    none comes twice; distinct: none comes twice."""

    of: "Number | Choice | Text | Row"
    fewest: int = 0
    ascending: bool = False
    distinct: bool = False

    def allows(self, value: object) -> bool:
        if not isinstance(value, tuple | list) or len(value) < self.fewest:
            return False
        if not all(self.of.allows(member) for member in value):
            return False
        if self.ascending:
            return all(a < b for a, b in itertools.pairwise(value))
        return not self.distinct or len(set(value)) == len(value)

    def __str__(self) -> str:
        order = ", ascending" if self.ascending else ", none twice" if self.distinct else ""
        return f"a tuple{' of at least one' if self.fewest else ''}, each {self.of}{order}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A tuple with a member for each of `of`. ascending: each at least the one before."""

    of: tuple[Number, ...]
    ascending: bool = False

    def allows(self, value: object) -> bool:
        if not isinstance(value, tuple | list) or len(value) != len(self.of):
            return False
        if not all(of.allows(member) for of, member in zip(self.of, value, strict=True)):
            return False
        return not self.ascending or list(value) == sorted(value)

    def __str__(self) -> str:
        return f"({'; '.join(map(str, self.of))}){', ascending' if self.ascending else ''}"


Range = Number | Choice | Text | Each | Row


def whole(low: int, high: int = MOST, off: int | None = None) -> Number:
    return Number(low, high, whole=True, off=off)


def real(low: float, high: float = LARGEST, **ends) -> Number:
    return Number(low, high, **ends)


def one_of(*names: str) -> Choice:
    return Choice(names)


ANY = real(-LARGEST)
POSITIVE = real(0.0, above=True)
SHARE = real(0.0, 1.0)
PART = real(0.0, 1.0, above=True)
LESS_THAN_ONE = real(0.0, 1.0, below=True)
BUCKETS = Each(whole(1), fewest=1, ascending=True)
SEED = whole(0, SEEDS)
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

RANGES: dict[str, Range] = {
    "seed": SEED,
    "seeds": Each(SEED, distinct=True),
    "policy_seeds": Each(SEED, distinct=True),
    "tables": Each(one_of("table1", "table2", "table3", "mini"), distinct=True),
    "stage": one_of("pretrain", "sft", "grpo", "tallrec", "llara"),
    "restore": one_of("latest", "best"),
    "mesh.data": whole(1, off=-1),
    "mesh.fsdp": whole(1),
    "mesh.tensor": whole(1),
    # data
    "sizes.sft": whole(0),
    "sizes.grpo": whole(0),
    "sizes.validation": whole(0),
    "sizes.evaluation": whole(0),
    "data.scale": Text(r"|counts|none|[^:]+:[^:]+:[^:]+", "LEAST:MOST:STEP (as 1:5:1), counts, none or ''"),
    "table.unit": one_of("s", "ms", "us", "ns"),
    "table.header": one_of("", "yes", "no"),
    "table.quote": one_of("", '"', "'", "none"),
    "data.min_likes": whole(0),
    "data.like_above": ANY,
    "data.ties": one_of("file", "random"),
    "data.candidates": whole(2),
    "data.negatives": one_of("uniform", "popularity", "hard"),
    "data.generated_users": whole(1),
    "data.workers": whole(0, 1024),
    # prompt; also of one system or study
    "answer": one_of("numbers", "titles"),
    "places": whole(1),
    "likes": whole(0),
    "history": whole(0),
    "chains": whole(0),
    "chain_length": whole(1),
    "chain_selection": one_of("uniform", "similar", "candidate_aware", "recent"),
    "buckets": BUCKETS,
    # model
    "model.dtype": one_of("bfloat16", "float16", "float32"),
    "model.remat": one_of("none", "dots", "block", "offload"),
    "model.attention": one_of("auto", "xla", "cudnn"),
    "model.quantize": one_of("", "int8"),
    "architecture.vocab_size": whole(1),
    "architecture.hidden_size": whole(1),
    "architecture.intermediate_size": whole(1),
    "architecture.num_hidden_layers": whole(1, 1024),
    "architecture.num_attention_heads": whole(1),
    "architecture.num_key_value_heads": whole(1),
    "architecture.head_dim": whole(1),
    "architecture.rms_norm_eps": POSITIVE,
    "architecture.max_position_embeddings": whole(1),
    "rope_parameters.rope_type": one_of("default", "llama3"),
    "rope_parameters.rope_theta": POSITIVE,
    "rope_parameters.factor": POSITIVE,
    "rope_parameters.low_freq_factor": POSITIVE,
    "rope_parameters.high_freq_factor": POSITIVE,
    "rope_parameters.original_max_position_embeddings": whole(1),
    "lora.rank": whole(1),
    "lora.alpha": POSITIVE,
    "lora.dropout": LESS_THAN_ONE,
    "lora.targets": Each(one_of(*LINEAR_LAYERS), fewest=1, distinct=True),
    # teachers, and servers as systems
    "annotate.tasks": Each(one_of("rating", "ranking"), fewest=1, distinct=True),
    "annotate.teacher": one_of("template", "local", "openai"),
    "annotate.attempts": whole(1),
    "annotate.max_tokens": whole(1),
    "annotate.temperature": real(0.0),
    "annotate.top_p": PART,
    "local.batch_size": whole(1),
    "local.chunk": whole(1),
    "thought_tokens": whole(0),
    "concurrency": whole(1, 10_000),
    "requests_per_minute": whole(0),
    "timeout_s": real(0.0, 1e6, above=True),
    "retries": whole(0, 1000),
    "prompt_price": real(0.0),
    "completion_price": real(0.0),
    "cost_limit": real(0.0),
    # training
    "optimizer.learning_rate": POSITIVE,
    "optimizer.warmup_fraction": SHARE,
    "optimizer.final_fraction": SHARE,
    "optimizer.clip_norm": POSITIVE,
    "optimizer.b1": LESS_THAN_ONE,
    "optimizer.b2": LESS_THAN_ONE,
    "optimizer.weight_decay": real(0.0),
    "train.steps": whole(1),
    "train.batch_size": whole(1),
    "train.micro_batches": whole(1),
    "train.response_buckets": BUCKETS,
    "train.questions": whole(1),
    "train.log_every": whole(1),
    "train.checkpoint_every": whole(1),
    "train.evaluate_every": whole(1),
    "train.patience": whole(0),
    "train.stop_after_skipped": whole(0),
    "profile.steps": Text(r"(\d{1,9}:\d{1,9})?", "FIRST:LAST, e.g. 100:105, or '' for no trace"),
    "corpus.kind": one_of("documents", "moments"),
    "corpus.tokenizer_documents": whole(1),
    "corpus.curriculum": Each(
        Row((real(0.0, 1.0, above=True), whole(1), whole(0))), fewest=1, ascending=True
    ),
    # rollout, reward, GRPO
    "rollout.max_tokens": whole(1),
    "rollout.temperature": real(0.0),
    "rollout.top_k": whole(0),
    "rollout.top_p": PART,
    "rollout.min_p": SHARE,
    "rollout.stop": Each(Text(r"(?s).+", "a text of at least one character")),
    "rollout.chunk": whole(1),
    "rollout.weights": one_of("adapter", "merged", "int8"),
    "rollout.cache": one_of("", "int8"),
    "reward.step_weight": ANY,
    "reward.rank_weight": ANY,
    "reward.facts_weight": ANY,
    "reward.statements": Row((whole(1), whole(1)), ascending=True),
    "reward.extra": Each(Text(r"[\w.]+:\w+", "a function as module:function"), distinct=True),
    "reward.extra_weights": Each(ANY),
    "reward.workers": whole(0, 1024),
    "grpo.group": whole(2),  # a completion is compared with the others of its group
    "grpo.slots": whole(0),
    "grpo.clip_low": PART,
    "grpo.clip_high": POSITIVE,
    "grpo.beta": real(0.0),
    "grpo.aggregation": one_of("sequence_mean", "token_mean", "dr_grpo"),
    "grpo.updates_per_rollout": whole(1),
    "grpo.ratio": one_of("token", "sequence"),
    "grpo.dual_clip": real(1.0, above=True, off=0.0),
    "grpo.kl": one_of("k1", "k2", "k3"),
    "grpo.importance_cap": real(0.0),
    # evaluation
    "evaluate.batch_size": whole(1),
    "evaluate.runs": whole(1),
    "users": whole(2),
    "kind": one_of("policy", "tallrec", "server"),
    "mode": one_of("generate", "constrained", "likelihood"),
    "samples": whole(1),
    # baselines
    "profile": one_of("all", "recent_likes"),
    "k": whole(1),
    "shrink": real(0.0),
    "exponent": real(0.0),
    "l2": real(0.0),
    "ease.l2": POSITIVE,
    "loss": one_of("softmax", "bce"),
    "length": whole(1),
    "width": whole(1),
    "hidden": whole(1),
    "layers": whole(1),
    "heads": whole(1),
    "dropout": LESS_THAN_ONE,
    "window": whole(1),
    "horizontal": whole(1),
    "vertical": whole(1),
}


def range_of(field: str) -> Range | None:
    """The range of a field by its dotted name; None for one that is free, or not ours."""
    parts = field.split(".")
    ends = (".".join(parts[k:]) for k in range(len(parts)))
    return next((RANGES[end] for end in ends if end in RANGES), None)


def check(fields: dict[str, object]) -> None:
    """Raises UserError for the first of `fields`, by dotted name, that is out of its range."""
    for name, value in fields.items():
        allowed = range_of(name)
        if allowed and value is not None and not allowed.allows(value):
            raise UserError(f"--config.{name}={shown(repr(value), 200)}: use {allowed}")
