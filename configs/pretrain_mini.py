"""Pretrains R2Rec-mini on MovieLens-1M alone: what all users rated before their truths.

    python -m launch.train --config=configs/pretrain_mini.py --workdir=runs/pretrain_mini

Needs data from launch.prepare with configs/data.py:mini. Histories first, one token a title; then also
prompts with reasoning and answer (pipeline/histories.py). 44 minutes on two CPU cores whose products of
float32 reach 205 GFLOP/s. `configs/reproduce.py:ml1m_mini` has it as a stage. Resumable; ends with a
Hugging Face folder in WORKDIR/model.

`configs/pretrain_mini.py:gpu` is a larger model for a GPU, 25 times the parameters; it has never been run.
"""

from ml_collections import ConfigDict

from configs.base import base, mini, preset_of


def get_config(preset: str | None = None) -> ConfigDict:
    c = mini(base())
    c.stage = "pretrain"
    c.corpus = ConfigDict({"kind": "moments"})
    # (fraction of the run, tokens a row, candidates shown). Histories alone first: many items a row teach
    # what goes with what.
    c.corpus.curriculum = ((0.35, 88, 0), (1.0, 136, 20))
    c.model.folder = ""
    c.model.architecture = ConfigDict(
        {
            "vocab_size": 4352,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }
    )
    c.optimizer.learning_rate = 3e-3
    c.optimizer.warmup_fraction = 0.02
    c.optimizer.final_fraction = 0.05
    c.optimizer.b2 = 0.98
    c.optimizer.weight_decay = 0.05
    c.train.steps = 2_600
    c.train.batch_size = 128
    c.train.log_every = 20
    c.train.checkpoint_every = 250
    if preset_of(preset, ("gpu",)):
        c.model.dtype = "bfloat16"
        c.model.architecture.update({"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8})
        c.model.architecture.update({"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64})
        c.optimizer.learning_rate = 1e-3
        c.train.update({"steps": 10_000, "batch_size": 256})
    return c
