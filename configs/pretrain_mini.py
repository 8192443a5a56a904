"""Pretrains R2Rec-mini's base model on MovieLens-1M only: all users' ratings before their held-out items.

    python -m launch.train --config=configs/pretrain_mini.py --workdir=runs/pretrain_mini

Needs data from launch.prepare with configs/data.py:mini. Histories first, one token a title; then also
prompts with reasoning and answer (pipeline/histories.py). 44 minutes on two CPU cores that reach 205
GFLOP/s in float32 matrix products. `configs/reproduce.py:ml1m_mini` has it as a stage. Resumable; ends with a
Hugging Face folder in WORKDIR/model.

`configs/pretrain_mini.py:gpu` is a larger model for a GPU, 25 times the parameters; never run.
"""

from ml_collections import ConfigDict

from configs.base import mini, preset_of
from configs.declared import PretrainRun
from r2rec_jax.model.config import ArchitectureConfig, PretrainModelConfig, RopeConfig
from r2rec_jax.runtime.fields import to_config_dict
from r2rec_jax.train.config import CorpusConfig, OptimizerConfig, TrainConfig


def get_config(preset: str | None = None) -> ConfigDict:
    architecture = ArchitectureConfig(
        vocab_size=4352,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        rope_parameters=RopeConfig(rope_theta=1_000_000.0),
        tie_word_embeddings=True,
    )
    run = PretrainRun(
        # Histories only at first: many items per row, from which the model learns which items go together.
        corpus=CorpusConfig(kind="moments", curriculum=((0.35, 88, 0), (1.0, 136, 20))),
        model=PretrainModelConfig(architecture=architecture),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, warmup_fraction=0.02, final_fraction=0.05, b2=0.98, weight_decay=0.05
        ),
        train=TrainConfig(steps=2_600, batch_size=128, log_every=20, checkpoint_every=250),
    )
    c = mini(to_config_dict(run))
    c.model.folder = ""
    if preset_of(preset, ("gpu",)):
        c.model.dtype = "bfloat16"
        c.model.architecture.update({"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8})
        c.model.architecture.update({"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64})
        c.optimizer.learning_rate = 1e-3
        c.train.update({"steps": 10_000, "batch_size": 256})
    return c
