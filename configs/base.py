"""Fields and defaults that every run shares: the paper's setting on the 8B, ours where it is silent."""

from ml_collections import ConfigDict

from r2rec_jax.model.lora import LINEAR_LAYERS
from r2rec_jax.runtime.errors import UserError

MODEL_8B = "models/DeepSeek-R1-Distill-Llama-8B"
MODEL_TINY = "models/tiny-llama"


def base() -> ConfigDict:
    """MovieLens-1M, DeepSeek-R1-Distill-Llama-8B, adapters of rank 16 on all seven linear layers."""
    c = ConfigDict()
    c.seed = 0
    c.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    c.data = ConfigDict()
    c.data.folder = "runs/ml1m/data"  # prepared by launch.prepare
    c.data.source = "ml-1m"  # or "generated"
    c.data.raw = "data/ml-1m"
    c.data.seed = 0  # of the split and its candidates, and of generated users
    c.data.sizes = ConfigDict({"sft": 500, "grpo": 500, "validation": 100, "evaluation": 1000})
    c.data.candidates = 20
    c.data.generated_users = 1700

    c.prompt = ConfigDict()
    c.prompt.wording = "movies"  # prompts/wording.py
    c.prompt.answer = "numbers"  # what a ranking names: candidate "numbers" or "titles"
    c.prompt.places = 20
    c.prompt.likes = 5
    c.prompt.chains = 5
    c.prompt.buckets = (1024, 2048, 4096)  # padded prompt lengths, tokens

    c.model = ConfigDict()
    c.model.folder = MODEL_8B
    c.model.dtype = "bfloat16"
    c.model.remat = True
    c.lora = ConfigDict({"rank": 16, "alpha": 32.0, "targets": LINEAR_LAYERS})

    c.annotate = ConfigDict({"folder": "runs/ml1m/annotate", "tasks": ("rating", "ranking")})

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 5e-5
    c.optimizer.warmup_fraction = 0.03
    c.optimizer.final_fraction = 0.0
    c.optimizer.clip_norm = 1.0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.weight_decay = 0.0

    c.train = ConfigDict({"log_every": 1, "checkpoint_every": 50, "evaluate_every": 50})
    c.profile = ConfigDict({"steps": ""})  # FIRST:LAST to trace a window
    return c


def sampling(c: ConfigDict) -> ConfigDict:
    """Adds how completions are drawn and paid for: GRPO, and evaluation of either stage."""
    c.rollout = ConfigDict()
    c.rollout.max_tokens = 1024
    c.rollout.temperature = 1.0
    c.rollout.top_p = 1.0
    c.rollout.chunk = 32
    c.reward = ConfigDict()
    c.reward.step_weight = 1.0
    c.reward.rank_weight = 2.0
    c.reward.step_needs_valid_answer = False
    c.reward.statements = (3, 8)  # a suitable number of reasoning statements
    return c


def tiny(c: ConfigDict) -> ConfigDict:
    """The embedded data and model: the same road in minutes on two CPU cores."""
    c.data.folder = "runs/quickstart/data"
    c.data.source = "generated"
    c.data.sizes = ConfigDict({"sft": 500, "grpo": 500, "validation": 100, "evaluation": 400})
    c.prompt.update({"wording": "compact", "answer": "titles", "places": 1, "buckets": (160,)})
    c.model.update({"folder": MODEL_TINY, "dtype": "float32", "remat": False})
    # The tiny vocabulary has no words for rating questions; launch.annotate writes them on request.
    c.annotate.tasks = ("ranking",)
    c.annotate.folder = "runs/quickstart/annotate"
    return c


def preset_of(name: str | None, known: tuple[str, ...]) -> str:
    """The preset after the colon of --config, '' for none; refuses one the file does not have."""
    if name and name not in known:
        raise UserError(f"unknown preset {name!r}: use one of {', '.join(known)}")
    return name or ""
