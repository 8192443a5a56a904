"""Makes peft_*/ and peft_logits.npz: adapters as PEFT saves them, and the logits of Llama with each.

Run it as make_golden.py, whose llama_scaled.npz is the base, with peft==0.21.2 installed besides:

    peers/bin/python make_peft_golden.py

peft_logits.npz holds tokens, int64 [rows, T]; base_logits, float32 [rows, T, V], without an adapter; and
NAME_logits, the same with the adapter in folder NAME.

It also reads what this project writes, and prints how far the logits are from those stored:

    peers/bin/python make_peft_golden.py --check peft_all_linear --adapter FOLDER    # through PEFT
    peers/bin/python make_peft_golden.py --check peft_all_linear --merged FOLDER     # a model folder
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
LOGITS = HERE / "peft_logits.npz"
CASES = {
    "peft_all_linear": {"r": 2, "lora_alpha": 8, "target_modules": "all-linear"},
    "peft_rslora": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["v_proj", "q_proj", "down_proj"],
        "use_rslora": True,
        "lora_dropout": 0.05,
    },
}


def base_model() -> LlamaForCausalLM:
    arrays = np.load(HERE / "llama_scaled.npz")
    model = LlamaForCausalLM(LlamaConfig(**json.loads(str(arrays["config"])))).eval()
    state = {
        name.removeprefix("weight/"): torch.tensor(arrays[name].astype(np.float32))
        for name in arrays.files
        if name.startswith("weight/")
    }
    model.load_state_dict(state)
    return model


def make(name: str, seed: int, tokens: torch.Tensor) -> np.ndarray:
    model = get_peft_model(base_model(), LoraConfig(task_type="CAUSAL_LM", **CASES[name])).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter, weight in model.named_parameters():
        if "lora_" in parameter:
            # A fresh B is zero, and an adapter of no effect hides every fault.
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink(missing_ok=True)
    return logits_of(model, tokens)


def logits_of(model, tokens: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(tokens).logits.float().numpy()


def make_all() -> None:
    vocabulary = base_model().config.vocab_size
    tokens = torch.tensor(np.random.default_rng(0).integers(0, vocabulary, (2, 24)))
    golden = {"tokens": tokens.numpy(), "base_logits": logits_of(base_model(), tokens)}
    for seed, name in enumerate(CASES):
        golden[f"{name}_logits"] = make(name, seed, tokens)
    np.savez_compressed(LOGITS, **golden)
    for file in (LOGITS, *(HERE / name / "adapter_model.safetensors" for name in CASES)):
        print(f"{file.relative_to(HERE)}: {file.stat().st_size / 1000:.0f} kB")


def check(name: str, adapter: str | None, merged: str | None) -> None:
    golden = np.load(LOGITS)
    if adapter:
        model = PeftModel.from_pretrained(base_model(), adapter).eval()
    else:
        model = LlamaForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    wanted = golden[f"{name}_logits"]
    difference = np.abs(logits_of(model, torch.tensor(golden["tokens"])) - wanted).max()
    effect = np.abs(golden["base_logits"] - wanted).max()
    print(f"{name}: largest difference {difference:.1e}, logits up to {np.abs(wanted).max():.1f}, ", end="")
    print(f"effect of the adapter {effect:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", choices=CASES)
    parser.add_argument("--adapter")
    parser.add_argument("--merged")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check, arguments.adapter, arguments.merged)
    else:
        make_all()
