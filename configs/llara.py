"""LLaRA (Liao et al. 2024, arXiv 2312.02445): a prompt with titles and the item vectors of a SASRec.

    python -m launch.train --config=configs/llara.py --workdir=runs/ml1m/llara

Needs the 8B in models/, data from launch.prepare (configs/data.py:ml-1m) and `model.item_table`, which
launch.baselines writes when it trains a SASRec. Learning rate 2e-4, 5 epochs and a projector as wide as the
model, as in its published code; the adapter is that of our other systems. The published batch of 128 would
give 20 updates on 500 users, so it is 16 here. Not measured on the 8B.

    python -m launch.train --config=configs/llara.py:quickstart --workdir=runs/quickstart/llara \\
        --config.model.item_table=runs/quickstart/baselines/sasrec/items.npy

The bundled data and model, on two CPU cores; not timed.
"""

from ml_collections import ConfigDict

from configs.base import preset_of, tiny
from configs.declared import SFTRun
from r2rec_jax.model.config import ModelConfig
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.runtime.fields import to_config_dict
from r2rec_jax.train.config import OptimizerConfig, SFTTrainConfig

# Its prompt: ten liked items, each title followed by its item token, no chains, no reasoning.
PROMPT = {"chains": 0, "likes": 10, "reasoning": False, "answer": "titles", "places": 1, "item_tokens": True}


def get_config(preset: str | None = None) -> ConfigDict:
    run = SFTRun(
        stage="llara",
        model=ModelConfig(item_table="runs/ml1m/baselines/sasrec/items.npy"),
        prompt=PromptConfig(**PROMPT, buckets=(640, 704, 1088, 2048)),
        train=SFTTrainConfig(batch_size=16, steps=157, response_buckets=(32, 64)),  # 5 epochs of 500 users
        optimizer=OptimizerConfig(learning_rate=2e-4),
    )
    c = to_config_dict(run)
    if preset_of(preset, ("quickstart",)):
        tiny(c)
        c.model.item_table = "runs/quickstart/baselines/sasrec/items.npy"
        c.train.update({"batch_size": 32, "steps": 100, "response_buckets": (16,)})
        c.optimizer.learning_rate = 2e-3
    return c
