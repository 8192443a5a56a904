"""The peer of bench/load.py, run as `load_transformers.py FOLDER DTYPE`. Prints JSON on the last line."""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama  # noqa: F401 (a lazy import, excluded from the measurement)


def peak_mb() -> float:
    with open("/proc/self/status", encoding="utf-8") as status:
        return int(status.read().split("VmHWM:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    before = peak_mb()
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
    for parameter in model.parameters():
        parameter.detach().view(-1)[::1024].sum()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "before_mb": before, "peak_mb": peak_mb()}))
