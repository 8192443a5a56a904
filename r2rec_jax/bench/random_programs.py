"""The training programs of a Llama with random weights on one device, without any files."""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import linen as nn

from r2rec_jax.bench.models import LORA, run_config
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.attention import choose_attention
from r2rec_jax.model.llama import Llama, abstract_variables
from r2rec_jax.runtime.mesh import make_mesh, replicated
from r2rec_jax.train import grpo, supervised
from r2rec_jax.train.config import GRPOConfig
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import TrainState

NEVER = -1  # an end token that is never drawn
SETTINGS = GRPOConfig()  # clip 0.2, KL weight 0.04, mean over sequences


class Programs:
    """Jitted SFT and GRPO steps that share one train state.

    The base has dtype `dtype`, adapter and optimizer state are float32.
    steps: "sft", "grpo": jitted (state, frozen, batch) -> (state, metrics). frozen: their second arguments.
    """

    def __init__(self, config: LlamaConfig, dtype: str, remat: str):
        self.attention = choose_attention("auto", config.head_dim, jnp.dtype(dtype))
        self.model = Llama(config, LORA, jnp.dtype(dtype), remat, attention=self.attention)
        base, adapter = random_variables(self.model, "params"), random_variables(self.model, "lora")
        optimizer = make_optimizer(run_config(Path()).optimizer, 1)
        reference = jax.tree.map(lambda x: x.copy(), adapter)
        self.state = TrainState.create({"lora": adapter}, optimizer)
        self.frozen = {
            "sft": {"params": base},
            "grpo": {"base": {"params": base}, "reference": {"lora": reference}},
        }

        mesh = make_mesh(data=1)
        self.state, self.frozen = jax.device_put((self.state, self.frozen), replicated(mesh))
        self.steps = {
            "sft": supervised.compile_update(self.model, optimizer, self.state, self.frozen["sft"], mesh),
            "grpo": grpo.compile_update(
                self.model, optimizer, SETTINGS, 1.0, self.state, self.frozen["grpo"], mesh
            ),
        }

    @property
    def variables(self) -> dict:
        return self.frozen["sft"] | self.state.trainable

    def train(self, stage: str, batch) -> dict:
        """Runs one step of "sft" or "grpo" and returns its metrics on the device."""
        self.state, metrics = self.steps[stage](self.state, self.frozen[stage], batch)
        return metrics


def random_variables(model: Llama, collection: str) -> dict:
    """Random variables of one collection.

    Norm scales are 1. All others are normal: params with deviation 0.02 in the model's dtype, adapters with
    0.01 in float32.
    """
    abstract = nn.meta.unbox(abstract_variables(model))[collection]
    leaves, structure = jax.tree.flatten_with_path(abstract)

    def draw(path, leaf, key):
        if path[-1].key == "scale":
            return jnp.ones(leaf.shape, model.dtype)
        if collection == "lora":
            return 0.01 * jax.random.normal(key, leaf.shape)
        return (0.02 * jax.random.normal(key, leaf.shape, model.dtype)).astype(model.dtype)

    # One leaf at a time, because the random bits of a whole 8B would be twice its size.
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        jax.jit(draw, static_argnums=(0, 1))(path, leaf, key)
        for (path, leaf), key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)
