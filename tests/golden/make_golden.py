"""Makes llama_*.npz: what Hugging Face's Llama computes under torch on three tiny random models.

Run it in an environment of its own, from this folder:

    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
    peers/bin/python make_golden.py

A file holds (T tokens a row, C token positions whose logits are kept):
  config                   the model's config.json as given to Hugging Face, as text
  inverse_frequencies      float32 [A/2] of its rotary embedding
  weight/NAME              float16 and exact, by Hugging Face's tensor names
  prompt_length, length    int64 [rows]; tokens int64 [rows, T], right-padded with zeros
  position                 int64 [C, 2]: (row, column)
  logits                   float32 [C, V] of those positions
  normaliser               float32 [rows, T]: log-sum-exp of the logits, 0 on padding
  bfloat16_kl              KL(float32 model || it in bfloat16), mean over valid tokens, nats
  loss                     mean cross-entropy of the tokens at columns prompt_length..length-1
  norm/NAME                Euclidean norm of the loss's gradient in that tensor
  gradient/NAME            at most 256 of its entries, spread evenly over the flat array (see SAMPLE)

llama_frequencies.npz holds inverse_frequencies and config of published models, by their names.
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SAMPLE = 256
SHAPE = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    # Large enough to be seen in the logits.
    "rms_norm_eps": 1e-2,
    "max_position_embeddings": 1024,
}
# The original context is far below the rows' length, so every band of the scaling is exercised.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama_scaled": {
        "config": SHAPE
        | {
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "tie_word_embeddings": False,
            # The layout of transformers 4, as in the published 8B.
            "rope_theta": 10000.0,
            "rope_scaling": LLAMA3,
        },
        "prompt_length": [300, 211, 1],
        "length": [600, 517, 90],
    },
    "llama_tied": {
        # A head wider than hidden_size / heads, as some published Llamas have.
        "config": SHAPE
        | {
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        },
        "prompt_length": [20, 7],
        "length": [48, 33],
    },
    # Like Llama 2: every head has keys of its own, and what the file leaves out has its default.
    "llama_plain": {
        "config": SHAPE | {"num_hidden_layers": 2, "rope_scaling": None},
        "prompt_length": [1, 250, 64],
        "length": [31, 520, 200],
    },
}
PUBLISHED = {
    "DeepSeek-R1-Distill-Llama-8B": {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192},
    },
    "Llama-3.2-1B": {
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "head_dim": 64,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192},
    },
    "Llama-2-7B": {"hidden_size": 4096, "num_attention_heads": 32},
}


def random_model(config: dict, seed: int) -> LlamaForCausalLM:
    """Weights large enough that attention is peaked; at the usual 0.02 it hides faults."""
    model = LlamaForCausalLM(LlamaConfig(**copy.deepcopy(config), attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        value = 1 + 0.1 * noise if weight.ndim == 1 else 1.5 * noise / weight.shape[1] ** 0.5
        weight.data = value.half().float()
    return model


def make(config: dict, prompt_length: list[int], length: list[int], seed: int) -> dict:
    model = random_model(config, seed)
    rng = np.random.default_rng(seed)
    columns = np.arange(max(length))
    valid = columns < np.array(length)[:, None]
    tokens = np.where(valid, rng.integers(0, config["vocab_size"], valid.shape), 0)
    ids, mask = torch.tensor(tokens), torch.tensor(valid)

    logits = model(ids, attention_mask=mask.long()).logits
    logprobs = torch.log_softmax(logits, -1)
    chosen = logprobs[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    trained = mask[:, 1:] & torch.tensor(columns[1:] >= np.array(prompt_length)[:, None])
    loss = -chosen[trained].mean()
    loss.backward()
    with torch.no_grad():
        half = copy.deepcopy(model).bfloat16()(ids, attention_mask=mask.long()).logits
        half_logprobs = torch.log_softmax(half.float(), -1)
        kl = (logprobs.exp() * (logprobs - half_logprobs)).sum(-1)[mask].mean()

    position = np.argwhere(valid)
    position = position[np.linspace(0, len(position) - 1, 48).round().astype(int)]
    golden = {
        "config": json.dumps(config),
        "inverse_frequencies": model.model.rotary_emb.inv_freq.numpy(),
        "prompt_length": np.array(prompt_length),
        "length": np.array(length),
        "tokens": tokens,
        "position": position,
        "logits": logits.detach().numpy()[tuple(position.T)],
        "normaliser": np.where(valid, torch.logsumexp(logits, -1).detach().numpy(), 0),
        "bfloat16_kl": kl.numpy(),
        "loss": loss.detach().numpy(),
    }
    for name, weight in model.named_parameters():
        gradient = weight.grad.numpy()
        spread = np.linspace(0, gradient.size - 1, min(gradient.size, SAMPLE)).round().astype(int)
        golden[f"weight/{name}"] = weight.detach().numpy().astype(np.float16)
        golden[f"norm/{name}"] = np.linalg.norm(gradient)
        golden[f"gradient/{name}"] = gradient.ravel()[spread]
    return golden


def published_frequencies() -> dict:
    arrays = {}
    for name, config in PUBLISHED.items():
        full = SHAPE | {"num_hidden_layers": 1, "max_position_embeddings": 131072} | config
        arrays[f"config/{name}"] = json.dumps(full)
        rotary = LlamaRotaryEmbedding(LlamaConfig(**full))
        arrays[f"inverse_frequencies/{name}"] = rotary.inv_freq.numpy()
    return arrays


if __name__ == "__main__":
    files = {name: make(**case, seed=seed) for seed, (name, case) in enumerate(CASES.items())}
    files["llama_frequencies"] = published_frequencies()
    for name, arrays in files.items():
        file = Path(__file__).with_name(f"{name}.npz")
        np.savez_compressed(file, **arrays)
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")
