"""Pretrains the embedded base model on text rendered from generated logs; see its model card.

    python -m launch.train --config=configs/pretrain_tiny.py --workdir=runs/pretrain_tiny

Needs no input. Resumable; ends with a Hugging Face folder in WORKDIR/model, which becomes
models/tiny-llama.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config() -> ConfigDict:
    c = base()
    c.stage = "pretrain"
    c.data.source = "generated"
    c.data.seed = 1000  # quickstart's users come from seeds below 1000
    c.data.sizes = ConfigDict({})
    c.data.generated_users = 20_000
    c.data.workers = 0
    c.corpus = ConfigDict({"kind": "documents"})
    c.corpus.tokenizer_documents = 4_000
    # (fraction of the run, tokens a row, most options in a document): copying forms on short rows.
    c.corpus.curriculum = ((0.4, 64, 4), (0.8, 128, 10), (1.0, 256, 20))
    c.model.folder = ""
    c.model.dtype = "float32"
    c.model.remat = "none"
    c.model.architecture = ConfigDict(
        {
            "vocab_size": 1024,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            },
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
        }
    )
    c.optimizer.learning_rate = 3e-3
    c.optimizer.warmup_fraction = 0.02
    c.optimizer.final_fraction = 0.05
    c.optimizer.b2 = 0.98
    c.optimizer.weight_decay = 0.01
    c.train.steps = 3_500
    c.train.batch_size = 48
    c.train.log_every = 20
    c.train.checkpoint_every = 250
    return c
