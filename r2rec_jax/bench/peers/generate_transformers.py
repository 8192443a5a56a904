"""The peer of bench/rollout.py: transformers' generate, run as `generate_transformers.py FOLDER VARIANT`.

VARIANT is MODE,CACHE,DTYPE: eager or compiled, which needs the static cache; dynamic or static; float32 or
bfloat16. FOLDER/prompts.npz contains `prompts` [B, P], `rows` [N, R], the rows sampled by the other side, and
`samples`, the number of rows per prompt. The first reply is the mean log-probability of these rows.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from serving import serve
from transformers import AutoModelForCausalLM, CompileConfig


def compiled_anywhere() -> CompileConfig:
    config = CompileConfig(mode="default")
    config._compile_all_devices = True  # by default generate compiles only on accelerators
    return config


def main(folder: Path, mode: str, cache: str, dtype: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=getattr(torch, dtype)).eval()
    given = np.load(folder / "prompts.npz")
    prompts = torch.tensor(given["prompts"], dtype=torch.long)
    rows = torch.tensor(given["rows"], dtype=torch.long)
    samples, R = int(given["samples"]), rows.shape[1]
    options = {"compile_config": compiled_anywhere()} if mode == "compiled" else {"disable_compile": True}
    # Without an end token, every row has R tokens.
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def mean_logprob() -> float:
        tokens = torch.cat([prompts.repeat_interleave(samples, dim=0), rows], dim=1)
        logits = model(input_ids=tokens, logits_to_keep=R + 1).logits[:, :-1].float()
        return torch.log_softmax(logits, -1).gather(-1, rows[..., None]).mean().item()

    def turn() -> dict:
        out = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=R,
            num_return_sequences=samples,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            cache_implementation=cache,
            pad_token_id=0,
            **options,
        )
        return {"shape": list(out.shape)}

    serve(turn, {"mean_logprob": mean_logprob()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2].split(","))
