"""The `rollout` section of a config: how completions are sampled."""

from r2rec_jax.runtime.fields import Section, declaration, field
from r2rec_jax.runtime.ranges import PART, SHARE, Each, Text, one_of, real, whole

WEIGHTS = ("adapter", "merged", "int8")


@declaration
class RolloutConfig(Section):
    """How completions are sampled."""

    WHERE = "rollout"
    max_tokens: int = field(1024, "Longest completion, tokens.", whole(1))
    temperature: float = field(1.0, "Sampling temperature; 0: greedy.", real(0.0))
    top_k: int = field(0, "Most probable tokens that are kept; 0: all.", whole(0))
    top_p: float = field(1.0, "Probability mass that is kept (nucleus sampling); 1: all.", PART)
    min_p: float = field(0.0, "Least probability kept, as a share of the largest; 0: all.", SHARE)
    stop: tuple[str, ...] = field(
        (),
        "Texts that end a completion.",
        Each(Text(r"(?s).+", "a text of at least one character")),
    )
    constrained: bool = field(False, "Whether answers are constrained to valid rankings.")
    chunk: int = field(32, "Tokens decoded between two checks for completions that have ended.", whole(1))
    weights: str = field(
        "adapter",
        "What decodes: base with adapter, a merged copy, or that copy in int8.",
        one_of(*WEIGHTS),
    )
    cache: str = field(
        "",
        "Dtype of cached keys and values; '': the model's dtype.",
        one_of("", "int8"),
    )
