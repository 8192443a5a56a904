"""Config sections of an evaluation: its systems, and how they rank."""

from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.runtime.fields import Section, declaration, field, optional, subset
from r2rec_jax.runtime.ranges import one_of, whole
from r2rec_jax.teachers.config import ServerConfig

# policy: a model of this repository ranks by its answer or its probabilities. tallrec: a model trained to
# answer Yes or No. server: a model behind an OpenAI-compatible server.
KINDS = ("policy", "tallrec", "server")
MODES = ("generate", "constrained", "likelihood")


@declaration
class ValidationConfig(Section):
    """Evaluation during training."""

    WHERE = "evaluate"
    batch_size: int = field(32, "Completions that decode at once.", whole(1))


@declaration
class EvaluateConfig(ValidationConfig):
    """How often systems rank, and where replies are stored."""

    replies: str = field(
        "runs/replies", "Folder of servers' replies; a request whose reply is there is not sent again."
    )
    runs: int = field(
        3, "Runs of each system that samples; metrics use the mean over a user's runs.", whole(1)
    )


@declaration
class SystemConfig(Section):
    """One system of an evaluation."""

    kind: str = field("policy", "What ranks: a policy, a TALLRec policy, or a server.", one_of(*KINDS))
    adapter: str = field("", "Workdir of the training run whose adapter ranks; '': the base model alone.")
    mode: str = field(
        "generate",
        "How a policy ranks: its answer, an answer constrained to valid rankings, or the likelihood of each "
        "candidate after its reasoning.",
        one_of(*MODES),
    )
    samples: int = field(
        1, "Completions whose rankings are fused into one (self-consistency); 1: no fusion.", whole(1)
    )
    prompt: dict = subset(PromptConfig, "Fields of the prompt section that differ for this system.")
    server: ServerConfig | None = optional(ServerConfig)
