"""Pretrains the embedded base model on text rendered from generated logs; see its model card.

    python -m launch.train --config=configs/pretrain_tiny.py --workdir=runs/pretrain_tiny

Needs no input. Resumable; ends with a Hugging Face folder in WORKDIR/model, which becomes
models/tiny-llama.
"""

from ml_collections import ConfigDict

from configs.declared import PretrainRun
from r2rec_jax.data.config import DataConfig, SizesConfig
from r2rec_jax.model.config import ArchitectureConfig, Llama3RopeConfig, PretrainModelConfig
from r2rec_jax.runtime.fields import to_config_dict
from r2rec_jax.train.config import DocumentCorpusConfig, OptimizerConfig, TrainConfig


def get_config() -> ConfigDict:
    architecture = ArchitectureConfig(
        vocab_size=1024,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        rope_parameters=Llama3RopeConfig(
            rope_theta=500_000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=256,
        ),
    )
    no_users = SizesConfig(sft=0, grpo=0, validation=0, evaluation=0)  # no user is held out
    run = PretrainRun(
        # Users of the quickstart come from seeds below 1000.
        data=DataConfig(source="generated", seed=1000, sizes=no_users, generated_users=20_000, workers=0),
        # Short rows first, from which the model learns the formats.
        corpus=DocumentCorpusConfig(curriculum=((0.4, 64, 4), (0.8, 128, 10), (1.0, 256, 20))),
        model=PretrainModelConfig(dtype="float32", remat="none", architecture=architecture),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, warmup_fraction=0.02, final_fraction=0.05, b2=0.98, weight_decay=0.01
        ),
        train=TrainConfig(steps=3_500, batch_size=48, log_every=20, checkpoint_every=250),
    )
    return to_config_dict(run)
