"""TALLRec (Bao et al. 2023, arXiv 2305.00447): an adapter trained to answer Yes or No for one item.

    python -m launch.train --config=configs/tallrec.py --workdir=runs/ml1m/tallrec

Needs the 8B in models/ and data from launch.prepare (configs/data.py:ml-1m). Learning rate 1e-4 and 128
questions a step, as in its published code; the adapter is that of our other systems instead of its rank 8 on
queries and values. Base model and training users are those of our SFT. Not measured on the 8B.

    python -m launch.train --config=configs/tallrec.py:quickstart --workdir=runs/quickstart/tallrec

The bundled data and model, on two CPU cores; not timed.
"""

from ml_collections import ConfigDict

from configs.base import preset_of, tiny
from configs.declared import TALLRecRun
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.runtime.fields import to_config_dict
from r2rec_jax.train.config import OptimizerConfig, TALLRecTrainConfig

# Ten rated items before the item in question, as in the paper's movie data, and nothing else.
PROMPT = {"history": 10, "likes": 0, "chains": 0, "reasoning": False}


def get_config(preset: str | None = None) -> ConfigDict:
    # 118 steps: 3 epochs of 500 users' questions.
    train = TALLRecTrainConfig(
        questions=10, batch_size=128, micro_batches=4, steps=118, response_buckets=(8,)
    )
    run = TALLRecRun(
        prompt=PromptConfig(**PROMPT, buckets=(224, 256, 320, 512)),
        train=train,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    c = to_config_dict(run)
    if preset_of(preset, ("quickstart",)):
        tiny(c)
        c.train.update({"batch_size": 64, "steps": 150, "micro_batches": 1, "response_buckets": (16,)})
        c.optimizer.learning_rate = 2e-3
    return c
