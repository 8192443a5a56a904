"""Config sections of training: `train`, `optimizer`, `corpus` of pretraining, `grpo` and `reward`."""

from ml_collections import ConfigDict

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import Section, declaration, field, required
from r2rec_jax.runtime.ranges import (
    ANY,
    BUCKETS,
    LESS_THAN_ONE,
    PART,
    POSITIVE,
    SHARE,
    Each,
    Row,
    Text,
    one_of,
    real,
    whole,
)

CORPORA = ("documents", "moments")
AGGREGATIONS = ("sequence_mean", "token_mean", "dr_grpo")
RATIOS = ("token", "sequence")
KLS = ("k1", "k2", "k3")


@declaration
class OptimizerConfig(Section):
    """AdamW with linear warm-up, cosine decay and gradient clipping."""

    WHERE = "optimizer"
    learning_rate: float = field(5e-5, "Peak learning rate.", POSITIVE)
    warmup_fraction: float = field(0.03, "Share of the steps in which the learning rate rises.", SHARE)
    final_fraction: float = field(0.0, "Learning rate at the end, as a share of the peak.", SHARE)
    clip_norm: float = field(1.0, "Norm to which a larger gradient is scaled.", POSITIVE)
    b1: float = field(0.9, "Decay of the gradient's running mean.", LESS_THAN_ONE)
    b2: float = field(0.999, "Decay of the squared gradient's running mean.", LESS_THAN_ONE)
    weight_decay: float = field(0.0, "Weight decay of AdamW.", real(0.0))


@declaration
class LoopConfig(Section):
    """What the training loop does besides steps."""

    WHERE = "train"
    log_every: int = field(1, "Steps from one line of metrics to the next.", whole(1))
    checkpoint_every: int = field(50, "Steps from one checkpoint to the next.", whole(1))
    evaluate_every: int = field(50, "Steps from one evaluation during training to the next.", whole(1))
    best_metric: str = field(
        "", "Metric of these evaluations, higher is better, whose best checkpoint is kept too; '': none."
    )
    patience: int = field(0, "Evaluations without a better one that end the run; 0: none do.", whole(0))
    stop_after_skipped: int = field(
        5, "Updates in a row with a gradient that is not finite that end the run; 0: none do.", whole(0)
    )
    micro_batches: int = field(1, "Parts of a batch whose gradients are accumulated in one step.", whole(1))


@declaration
class TrainConfig(LoopConfig):
    """Steps of training and their size."""

    batch_size: int = required("Rows of a step: traces, questions or packed rows.", whole(1))
    steps: int = required("Steps of the whole run.", whole(1))


@declaration
class SFTTrainConfig(TrainConfig):
    """Training on given responses."""

    response_buckets: tuple[int, ...] = required(
        "Padded response lengths in tokens; a longer response is refused.", BUCKETS
    )


@declaration
class TALLRecTrainConfig(SFTTrainConfig):
    """Training on questions with the answers Yes and No."""

    questions: int = field(10, "Questions for each SFT user.", whole(1))


@declaration
class GRPOTrainConfig(TrainConfig):
    """Training on sampled completions."""

    batch_size: int = required("Prompts of a step; each has a group of completions.", whole(1))
    init: str = field("", "Workdir of the SFT run whose adapter training continues; '': a fresh adapter.")


@declaration
class CorpusConfig(Section):
    """The rows of pretraining."""

    WHERE = "corpus"
    kind: str = field(
        "moments", "Texts about a generated log, or moments of a prepared one.", one_of(*CORPORA)
    )
    curriculum: tuple[tuple[float, int, int], ...] = required(
        "Parts of the run: (fraction of it at their end, tokens a row, most candidates in a prompt).",
        Each(Row((real(0.0, 1.0, above=True), whole(1), whole(0))), fewest=1, ascending=True),
    )

    @classmethod
    def variant(cls, config: ConfigDict) -> type["CorpusConfig"]:
        return DocumentCorpusConfig if config.get("kind") == "documents" else cls


@declaration
class DocumentCorpusConfig(CorpusConfig):
    """Texts about a generated log."""

    kind: str = field(
        "documents", "Texts about a generated log, or moments of a prepared one.", one_of(*CORPORA)
    )
    tokenizer_documents: int = field(4_000, "Documents that the tokenizer is trained on.", whole(1))


@declaration
class GRPOConfig(Section):
    """The GRPO objective (Shao et al. 2024); deviations from it are off by default."""

    WHERE = "grpo"
    group: int = field(8, "Completions of a prompt, compared with each other.", whole(2))
    slots: int = field(
        0, "Prompts that decode at once, while others wait for a free slot; 0: all of a batch.", whole(0)
    )
    clip_low: float = field(0.2, "Ratios are clipped at 1 - clip_low from below.", PART)
    clip_high: float = field(0.2, "Ratios are clipped at 1 + clip_high from above.", POSITIVE)
    beta: float = field(0.04, "Weight of the KL to the reference; 0: no reference is computed.", real(0.0))
    scale_by_std: bool = field(True, "Whether advantages are divided by the group's standard deviation.")
    aggregation: str = field(
        "sequence_mean",
        "How tokens are averaged: completions alike, tokens alike, or by a constant divisor (dr_grpo).",
        one_of(*AGGREGATIONS),
    )
    updates_per_rollout: int = field(1, "Optimizer updates on each batch of completions.", whole(1))
    mask_truncated: bool = field(False, "Whether completions that reach max_tokens are left out of the loss.")
    ratio: str = field(
        "token",
        "Importance ratio of each token, or one for each completion (GSPO, Zheng et al. 2025).",
        one_of(*RATIOS),
    )
    dual_clip: float = field(
        0.0,
        "Ratio that bounds the loss of a completion with a negative advantage (Ye et al. 2020); 0: no bound.",
        real(1.0, above=True, off=0.0),
    )
    kl: str = field("k3", "Schulman's estimator of the KL; k3 is unbiased and never negative.", one_of(*KLS))
    importance_cap: float = field(
        0.0,
        "Largest weight that corrects a token for the sampler's own probability (Yao et al. 2025); 0: none.",
        real(0.0),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.dual_clip and self.dual_clip <= 1.0 + self.clip_high:
            raise UserError(f"grpo.dual_clip={self.dual_clip}: use more than 1 + grpo.clip_high, or 0")


@declaration
class RewardConfig(Section):
    """Parts of a completion's reward and their weights."""

    WHERE = "reward"
    step_weight: float = field(1.0, "Weight of the reward for a suitable number of statements.", ANY)
    rank_weight: float = field(2.0, "Weight of the reward for the rank of the held-out item.", ANY)
    facts_weight: float = field(
        0.0, "Weight of the share of statements that the prompt supports; 0: not checked.", ANY
    )
    step_needs_valid_answer: bool = field(
        False, "Whether statements are rewarded only where a valid answer follows."
    )
    statements: tuple[int, int] = field(
        (3, 8), "Least and most statements of suitable reasoning.", Row((whole(1), whole(1)), ascending=True)
    )
    extra: tuple[str, ...] = field(
        (),
        "Reward functions of your own.",
        Each(Text(r"[\w.]+:\w+", "a function as module:function"), distinct=True),
    )
    extra_weights: tuple[float, ...] = field((), "Weights of `extra`, in its order; (): 1 each.", Each(ANY))
    workers: int = field(
        4,
        "Processes that compute rewards while the device decodes; 0: none, and no time limit.",
        whole(0, 1024),
    )
    timeout_s: float = field(
        10.0,
        "Seconds for the reward of one completion; on timeout or exception the completion is masked.",
        real(0.0, 1e6, above=True),
    )
