"""A complete GRPO step compared with TRL, and the update with shared prompts compared with copied prompts.

The step samples 8 completions for each of 2 prompts with the adapter, draws random rewards, and updates with
the KL to the frozen adapter. Both sides load the same random base in float32 and the same adapter, sample at
temperature 1, and no row ends early. Ours decodes with the merged adapter and uses the faster of two
activation dtypes. TRL generates with transformers and runs in its fastest variant, which may be bfloat16. The
log-probabilities of both sides for the same rows must be equal.

The update runs once with one prompt for its group, and once with a copy of the prompt for each completion,
which is then its own group. By the number of tokens the ratio is G (P + R) / (P + G R). Attention lowers it,
because each completion attends to the prompt in both cases. The model is wide and shallow, so that its share
of attention is close to that of the 8B.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from r2rec_jax.bench.models import (
    DTYPES,
    LLAMA_5M,
    SMALLEST,
    WIDE_25M,
    random_tokens,
    run_config,
    write_models,
)
from r2rec_jax.bench.result import Row, fastest, paired_seconds, quickest, require_equal, row, serving
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.policy import load_policy
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.mesh import make_mesh, to_devices
from r2rec_jax.train.compile import place_state
from r2rec_jax.train.config import GRPOConfig
from r2rec_jax.train.grpo import GRPOBatch, compile_update
from r2rec_jax.train.objective import group_advantages
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import TrainState

SCRIPT = "grpo_trl.py"
VARIANTS = [f"eager,{cache},{dtype}" for cache in ("dynamic", "static") for dtype in ("float32", "autocast")]
VARIANTS += ["compiled,dynamic,float32", "compiled,dynamic,autocast"]
NEVER = -1  # an end token that is never drawn
SETTINGS = GRPOConfig()  # clip 0.2, KL weight 0.04, mean over sequences


def run(peers: str | None, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        step, update = folder / "step", folder / "update"
        write_models(step, SMALLEST if quick else LLAMA_5M)
        write_models(update, SMALLEST if quick else WIDE_25M)
        rows = _steps(peers, step, *((2, 2, 12, 4) if quick else (2, 8, 512, 128)), 3 if quick else 5)
        return rows + _updates(update, *((12, 4, 2) if quick else (2250, 1000, 8)), 2 if quick else 3)


class Trainer:
    """The policy of a folder, its state, and the compiled update."""

    def __init__(self, folder: Path, *, dtype: str = "float32", remat: str = "none"):
        config = run_config(folder, dtype=dtype, remat=remat)
        self.mesh = make_mesh()
        self.policy = load_policy(config.model, config.lora, self.mesh, seed=0)
        model, optimizer = self.policy.model, make_optimizer(config.optimizer, 1)
        reference = self.policy.trainable
        self.frozen = {"base": self.policy.frozen, "reference": reference}
        # A copy, because every step donates the state, but the reference must persist.
        self.state = TrainState.create(jax.tree.map(lambda x: x.copy(), reference), optimizer)
        self.state = place_state(self.state, self.mesh)
        self._update = compile_update(model, optimizer, SETTINGS, 1.0, self.state, self.frozen, self.mesh)

    def update(self, batch: GRPOBatch) -> dict:
        self.state, metrics = self._update(self.state, self.frozen, to_devices(batch, self.mesh))
        return jax.device_get(metrics)


def _steps(peers: str | None, folder: Path, B: int, G: int, P: int, R: int, repeats: int) -> list[Row]:
    steps = {dtype: make_step(folder, B, G, P, R, dtype) for dtype in DTYPES}
    ours = quickest(steps)
    step, target = steps[ours], 5
    name = f"GRPO step, {B} prompts of {P} tokens x {G} samples of {R}, {ours}, against TRL"
    batch = step()
    if peers is None:
        taken, _ = paired_seconds(step, lambda: None, repeats)
        return [row(name, taken, None, "s", target)]
    completions = batch.completions
    # One warm-up step, then two steps per measurement.
    most = 1 + 2 * repeats
    np.savez(folder / "grpo.npz", prompts=completions.prompt, rows=completions.response, steps=most)
    best = fastest(peers, SCRIPT, folder, VARIANTS)
    with serving(peers, SCRIPT, folder, best) as peer:
        # TRL scores these rows before its trainer enables autocast, so in float32 in every variant.
        tolerance = 1e-3 if ours == "float32" else 1e-2
        theirs = peer.hello["mean_logprob"]
        require_equal("mean log-probability", batch.sampler_logprobs.mean(), theirs, tolerance)
        seconds = paired_seconds(step, peer.ask, repeats, consecutive=True)
    return [row(f"{name} ({best})", *seconds, "s", target)]


def make_step(
    folder: Path, B: int, G: int, P: int, R: int, dtype: str = "float32"
) -> Callable[[], GRPOBatch]:
    """Returns a function that samples, draws random rewards, updates the policy, and returns the batch."""
    trainer = Trainer(folder, dtype=dtype)
    model = trainer.policy.model
    engine = Engine(
        model, NEVER, RolloutConfig(max_tokens=R, temperature=1.0, chunk=32, weights="merged"), trainer.mesh
    )
    length_B, mask_NR = np.full(B, P, np.int32), np.ones((B * G, R), np.float32)
    rng, calls = np.random.default_rng(0), 0

    def step() -> GRPOBatch:
        nonlocal calls
        calls += 1
        prompt_BP = random_tokens(model.config, B, P, seed=calls)
        variables = {**trainer.policy.frozen, **trainer.state.trainable}
        prompts = Prompts(prompt_BP, length_B, np.arange(B, dtype=np.int32))
        rollout = Rollout.of_groups(engine(variables, prompts, samples=G, seed=calls))
        assert rollout.length.min() == R
        advantage_BG, _ = group_advantages(rng.normal(size=(B, G)), scale_by_std=True)
        completions = CompletionBatch(prompt_BP, length_B, rollout.tokens, mask_NR)
        batch = GRPOBatch(completions, advantage_BG.reshape(-1), rollout.logprobs)
        trainer.update(batch)
        return batch

    return step


def _updates(folder: Path, P: int, R: int, G: int, repeats: int) -> list[Row]:
    """One group of `G` completions with its prompt once and `G` times. Uses remat, as for the 8B."""
    sides = [Trainer(folder, remat="block") for _ in range(2)]
    config = sides[0].policy.model.config
    prompt_1P, response_NR = random_tokens(config, 1, P), random_tokens(config, G, R, seed=1)
    mask_NR = np.ones((G, R), np.float32)
    advantage_N = np.random.default_rng(2).normal(size=G).astype(np.float32)
    sampler_NR = np.full((G, R), -np.log(config.vocab_size), np.float32)

    def batch(copies: int) -> GRPOBatch:
        prompts = np.repeat(prompt_1P, copies, axis=0)
        lengths = np.full(copies, P, np.int32)
        return GRPOBatch(CompletionBatch(prompts, lengths, response_NR, mask_NR), advantage_N, sampler_NR)

    shared, unshared = batch(1), batch(G)
    norms = [
        side.update(each)["train/grad_norm"] for side, each in zip(sides, (shared, unshared), strict=True)
    ]
    require_equal("norm of the gradient", *norms)
    seconds = paired_seconds(
        lambda: sides[0].update(shared), lambda: sides[1].update(unshared), repeats, warmup=0
    )
    bound = G * (P + R) / (P + G * R)
    name = f"GRPO update, prompt of {P}, {G} samples of {R}, against its prompt {G} times"
    return [row(name, *seconds, "s", 2.15, limit=bound)]
