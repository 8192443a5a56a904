"""The peer of bench/sft.py: a LoRA step of torch and peft, run as `sft_peft.py FOLDER VARIANT [START]`.

VARIANT is MODE,DTYPE: eager or compiled; float32, bfloat16 (weights) or autocast (float32 weights, linear
layers in bfloat16). With START, a time.time(), it runs one step and prints the seconds since START as JSON.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from serving import serve
from transformers import AutoModelForCausalLM


def make_step(folder: Path, mode: str, dtype: str) -> Callable[[], dict]:
    weights = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=weights)
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    forward = torch.compile(model) if mode == "compiled" else model

    batch = {
        name: torch.tensor(value, dtype=torch.long) for name, value in np.load(folder / "batch.npz").items()
    }
    tokens = torch.cat([batch["prompt"], batch["response"]], dim=1)
    labels = tokens.clone()
    labels[:, : batch["prompt"].shape[1]] = -100

    def step() -> dict:
        # Rows have no padding. Without a mask torch uses its causal kernel, the fastest.
        with torch.autocast("cpu", torch.bfloat16) if dtype == "autocast" else contextlib.nullcontext():
            loss = forward(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.item(), "norm": norm.item()}

    return step


if __name__ == "__main__":
    folder, variant, *start = sys.argv[1:]
    step = make_step(Path(folder), *variant.split(","))
    first = step()
    if start:
        print(json.dumps({"seconds": time.time() - float(start[0])}))
    else:
        serve(step, first)
