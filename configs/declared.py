"""Declarations of whole configs, built from the sections that the packages of r2rec_jax declare."""

from ml_collections import ConfigDict

from r2rec_jax.baselines.config import BaselineConfig
from r2rec_jax.data.config import DataConfig
from r2rec_jax.model.config import LoRAConfig, ModelConfig, PretrainModelConfig
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.rank.config import EvaluateConfig, SystemConfig, ValidationConfig
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.runtime.config import MeshConfig, ProfileConfig
from r2rec_jax.runtime.fields import (
    About,
    Section,
    check,
    declaration,
    field,
    leaves,
    mapping,
    named,
    optional,
    required,
    section,
    subset,
)
from r2rec_jax.runtime.ranges import SEED, Each, one_of, whole
from r2rec_jax.teachers.config import AnnotateConfig
from r2rec_jax.train.config import (
    CorpusConfig,
    GRPOConfig,
    GRPOTrainConfig,
    LoopConfig,
    OptimizerConfig,
    RewardConfig,
    SFTTrainConfig,
    TALLRecTrainConfig,
    TrainConfig,
)

TABLES = ("table1", "table2", "table3", "mini")
SEEDS = Each(SEED, distinct=True)
STAGE = one_of("pretrain", "sft", "grpo", "tallrec", "llara")


@declaration
class Run(Section):
    """Fields of every run. Defaults: MovieLens-1M, DeepSeek-R1-Distill-Llama-8B, LoRA on all seven linear
    layers."""

    seed: int = field(0, "Seed of initial weights, sampling and the order of data.", SEED)
    restore: str = field(
        "latest",
        "Which checkpoint `train.init` and systems read.",
        one_of("latest", "best"),
    )
    mesh: MeshConfig = section(MeshConfig())
    data: DataConfig = section(DataConfig())
    prompt: PromptConfig = section(PromptConfig())
    model: ModelConfig = section(ModelConfig())
    lora: LoRAConfig = section(LoRAConfig())
    annotate: AnnotateConfig = section(AnnotateConfig())
    optimizer: OptimizerConfig = section(OptimizerConfig())
    train: LoopConfig = section(LoopConfig())
    profile: ProfileConfig = section(ProfileConfig())

    @classmethod
    def variant(cls, config: ConfigDict) -> type["Run"]:
        if "tables" in config:
            return ReproduceRun
        if "stage" in config:
            return STAGES.get(config.stage, TrainingRun)
        if "users" in config:
            return FaithfulRun
        if "systems" in config:
            return EvaluationRun if isinstance(config.systems, ConfigDict) else BaselinesRun
        return Run


@declaration
class TrainingRun(Run):
    """A stage of training."""

    stage: str = required("What is trained, and how.", STAGE)
    train: TrainConfig = section(TrainConfig)


@declaration
class PretrainRun(TrainingRun):
    """Pretraining of a small Llama."""

    stage: str = field("pretrain", "What is trained, and how.", STAGE)
    model: PretrainModelConfig = section(PretrainModelConfig)
    corpus: CorpusConfig = section(CorpusConfig)


@declaration
class SFTRun(TrainingRun):
    """SFT of an adapter on teacher traces, or LLaRA's on answers."""

    stage: str = field("sft", "What is trained, and how.", STAGE)
    train: SFTTrainConfig = section(SFTTrainConfig)


@declaration
class TALLRecRun(TrainingRun):
    """TALLRec's SFT on questions with the answers Yes and No."""

    stage: str = field("tallrec", "What is trained, and how.", STAGE)
    train: TALLRecTrainConfig = section(TALLRecTrainConfig)


@declaration
class GRPORun(TrainingRun):
    """GRPO of an adapter."""

    stage: str = field("grpo", "What is trained, and how.", STAGE)
    train: GRPOTrainConfig = section(GRPOTrainConfig)
    rollout: RolloutConfig = section(RolloutConfig())
    reward: RewardConfig = section(RewardConfig())
    evaluate: ValidationConfig = section(ValidationConfig())
    grpo: GRPOConfig = section(GRPOConfig())


@declaration
class EvaluationRun(Run):
    """Evaluation of systems with language models."""

    rollout: RolloutConfig = section(RolloutConfig(temperature=0.6, top_p=0.9))
    reward: RewardConfig = section(RewardConfig())
    systems: dict[str, SystemConfig] = named(SystemConfig, "Systems, by their names in results.")
    evaluate: EvaluateConfig = section(EvaluateConfig())


@declaration
class FaithfulRun(EvaluationRun):
    """Measures of how a policy's reasons relate to its prompt and ranking."""

    users: int = field(200, "Number of evaluation users measured, from the first on.", whole(2))


@declaration
class BaselinesRun(Run):
    """Systems without a language model. Each has a section of its own name."""

    OTHERS = BaselineConfig

    systems: tuple[str, ...] = field((), "Systems to run, by the names of their sections.")


@declaration
class ReproduceRun(Run):
    """All stages of a run. Shared sections hold for every stage."""

    sft: SFTRun = section(SFTRun)
    grpo: GRPORun = section(GRPORun)
    eval: EvaluationRun = section(EvaluationRun)
    baselines: BaselinesRun = section(BaselinesRun)
    tallrec: TALLRecRun = section(TALLRecRun)
    llara: SFTRun = section(SFTRun)
    compared: dict[str, SystemConfig] = named(SystemConfig, "Table 1's other systems with language models.")
    grpo_alone: bool = field(False, "Whether GRPO from the base model runs in addition to GRPO after SFT.")
    tables: tuple[str, ...] = field(
        (), "Tables to measure; (): one run without tables.", Each(one_of(*TABLES), distinct=True)
    )
    seeds: tuple[int, ...] = field((), "Seeds of data, split and training for the tables.", SEEDS)
    policy_seeds: tuple[int, ...] = field((), "Seeds for which policies are trained.", SEEDS)
    policy: SystemConfig = section(SystemConfig)
    variants: dict[str, SystemConfig] = named(
        SystemConfig, "Other systems of a table; `adapter` is the stage that trains it."
    )
    studies: dict[str, dict] = subset(
        PromptConfig, "Changed prompt fields of further SFT-only policies, by name.", named=True
    )
    trained: dict[str, str] = mapping("Workdirs of the tables of other data sets, by data set, for Table 3.")
    pretrain: PretrainRun | None = optional(PretrainRun)


STAGES = {"pretrain": PretrainRun, "sft": SFTRun, "llara": SFTRun, "tallrec": TALLRecRun, "grpo": GRPORun}


def abouts(config: ConfigDict) -> dict[str, About]:
    """The declaration of each field of a config, by dotted name."""
    return {name: about for name, about, _ in leaves(Run, config)}


def check_ranges(config: ConfigDict) -> None:
    """Raises UserError for the first field out of its range."""
    for name, about, value in leaves(Run, config):
        check(about, value, f"--config.{name}")
