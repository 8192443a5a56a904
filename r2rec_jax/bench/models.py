"""Random Llamas with adapters, which a suite and its peers load from the same files."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.config import LINEAR_LAYERS, LoRAConfig
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.model.peft import save_adapter

LLAMA_25M = LlamaConfig(4096, 512, 1408, 8, 8, 4, 64, 1e-5, 500_000.0, None, 4096, True)
LLAMA_5M = LlamaConfig(4096, 256, 704, 6, 4, 2, 64, 1e-5, 500_000.0, None, 4096, True)
WIDE_25M = LlamaConfig(4096, 1024, 2816, 2, 16, 4, 64, 1e-5, 500_000.0, None, 4096, True)
SMALLEST = LlamaConfig(64, 32, 64, 2, 4, 2, 8, 1e-5, 500_000.0, None, 4096, True)
DTYPES = ("float32", "bfloat16")  # activation dtypes that this code tries if a peer has variants too
LORA = LoRAConfig(rank=16, alpha=32.0)


def write_models(folder: Path, config: LlamaConfig) -> None:
    """Writes `folder/base`, a Hugging Face model in float32, and `folder/adapter`, a PEFT adapter for it."""
    variables = init_variables(Llama(config, LORA), seed=0)
    rng = np.random.default_rng(0)
    # A fresh B is zero. Then A would get no gradient, and an error in A would not change the loss.
    lora = jax.tree.map(lambda x: rng.normal(0.0, 0.02, x.shape).astype(np.float32), variables["lora"])
    save_params(folder / "base", config, variables["params"], dtype=np.float32)
    save_adapter(folder / "adapter", LORA, lora, base_model=str(folder / "base"))


def run_config(
    folder: Path, *, dtype: str = "float32", remat: str = "none", learning_rate: float = 1e-4
) -> ConfigDict:
    """The config sections for `load_policy` and `make_optimizer`, with a constant learning rate."""
    c = ConfigDict()
    c.model = ConfigDict({"folder": str(folder / "base"), "dtype": dtype, "remat": remat})
    c.model.update({"attention": "auto", "quantize": ""})
    c.lora = ConfigDict({"rank": LORA.rank, "alpha": LORA.alpha, "targets": LINEAR_LAYERS})
    c.lora.update({"dropout": 0.0, "use_rslora": False, "folder": str(folder / "adapter")})
    c.optimizer = ConfigDict({"learning_rate": learning_rate, "warmup_fraction": 0.0, "final_fraction": 1.0})
    c.optimizer.update({"clip_norm": 1.0, "b1": 0.9, "b2": 0.999, "weight_decay": 0.0})
    return c


def random_tokens(config: LlamaConfig, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape).astype(np.int32)
