"""Generation of a group of samples per prompt, compared with transformers' generate.

Both sample from the same random float32 base at temperature 1, without truncation, and no row ends early.
Ours computes a prompt once for all its samples, transformers once for each. transformers runs in its fastest
variant, which may be bfloat16. The log-probabilities that ours records must equal those of transformers for
the same rows.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from r2rec_jax.bench.models import LLAMA_25M, SMALLEST, random_tokens, write_models
from r2rec_jax.bench.result import Row, fastest, paired_seconds, require_equal, row, serving
from r2rec_jax.model.huggingface import load_params
from r2rec_jax.model.llama import Llama
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.slots import Rollout

SCRIPT, TARGET = "generate_transformers.py", 2.5
VARIANTS = [
    f"{mode},{dtype}"
    for dtype in ("float32", "bfloat16")
    for mode in ("eager,dynamic", "eager,static", "compiled,static")
]
NEVER = -1  # an end token that is never drawn


def run(peers: str | None, quick: bool) -> list[Row]:
    config, (B, G, P, R) = (SMALLEST, (2, 2, 12, 4)) if quick else (LLAMA_25M, (4, 8, 512, 128))
    repeats = 3 if quick else 7
    name = f"{B} prompts of {P} tokens x {G} samples of {R}, against generate"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder, config)
        prompt_BP = random_tokens(config, B, P)
        generate = make_generate(folder, prompt_BP, samples=G, tokens=R)
        rollout = generate()
        if peers is None:
            ours, _ = paired_seconds(generate, lambda: None, repeats)
            return [row(name, ours, None, "s", TARGET)]
        np.savez(folder / "prompts.npz", prompts=prompt_BP, rows=rollout.tokens, samples=G)
        best = fastest(peers, SCRIPT, folder, VARIANTS)
        with serving(peers, SCRIPT, folder, best) as peer:
            tolerance = 1e-2 if "bfloat16" in best else 1e-3
            require_equal(
                "mean log-probability", rollout.logprobs.mean(), peer.hello["mean_logprob"], tolerance
            )
            seconds = paired_seconds(generate, peer.ask, repeats)
            assert peer.ask()["shape"] == [B * G, P + R]
        return [row(f"{name} ({best})", *seconds, "s", TARGET)]


def make_generate(folder: Path, prompt_BP: np.ndarray, *, samples: int, tokens: int) -> Callable[[], Rollout]:
    """Returns a function that samples new rows of `tokens` tokens at each call."""
    config, params = load_params(folder / "base", np.float32)
    engine = Engine(
        Llama(config), NEVER, RolloutConfig(max_tokens=tokens, temperature=1.0, top_p=1.0, chunk=32)
    )
    B, P = prompt_BP.shape
    calls = 0

    def generate() -> Rollout:
        nonlocal calls
        calls += 1
        prompts = Prompts(prompt_BP, np.full(B, P, np.int32), np.arange(B, dtype=np.int32))
        rollout = Rollout.of_groups(engine({"params": params}, prompts, samples=samples, seed=calls))
        assert rollout.length.min() == tokens
        return rollout

    return generate
