"""Makes trl_grpo.npz: TRL's own GRPO loss, and its gradient, on fixed log-probabilities.

Run it in an environment of its own, from this folder:

    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 transformers==5.23.0 trl==1.16.0 numpy
    peers/bin/python make_trl_golden.py

`GRPOTrainer._compute_loss` runs as it is; only the model's forward pass is replaced, by the given
log-probabilities. A file holds (N completions of R tokens):
  input/NAME        logprobs, old, reference, sampler, mask: float32 [N, R]; advantage: float32 [N]
  CASE/loss         float32 []
  CASE/gradient     float32 [N, R], with respect to logprobs
A CASE is LOSS_TYPE,RATIO,DELTA,BETA,corrected|plain: TRL's loss_type, importance_sampling_level, delta (0:
none), beta, and whether token-level importance weights capped at 1.2 correct for the sampler.
"""

import collections
import itertools
from types import SimpleNamespace

import numpy as np
import torch
from trl import GRPOTrainer

N, R = 6, 7
LENGTHS = np.array([7, 1, 3, 5, 2, 4])
CAP = 1.2


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    logprobs = -rng.exponential(1.0, (N, R))
    old = logprobs + rng.normal(0.0, 0.4, (N, R)) + rng.normal(0.0, 0.4, (N, 1))
    return {
        "logprobs": logprobs,
        "old": old,
        "reference": logprobs + rng.normal(0.0, 0.5, (N, R)),
        "sampler": old + rng.normal(0.0, 0.3, (N, R)),
        "advantage": np.array([1.3, -0.7, 0.2, -1.1, 0.4, 2.0]),
        "mask": np.arange(R) < LENGTHS[:, None],
    }


class Absent:
    """Stands for what the loss only reports to."""

    def __getattr__(self, _):
        return Absent()

    def __call__(self, x=None, *_, **__):
        return x


def trl_loss(given: dict, loss_type: str, ratio: str, delta: float, beta: float, corrected: bool):
    tensors = {name: torch.tensor(np.float32(value)) for name, value in given.items()}
    logprobs = tensors["logprobs"].requires_grad_()
    mask = tensors["mask"]
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=ratio,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=0.3,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=delta or None),
        use_vllm=corrected,
        vllm_importance_sampling_correction=corrected,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=R,
        accelerator=Absent(),
        _metrics={"train": collections.defaultdict(list)},
        _textual_logs=collections.defaultdict(list),
    )
    batch = {
        "prompt_ids": torch.zeros(N, 1, dtype=torch.long),
        "prompt_mask": torch.ones(N, 1, dtype=torch.long),
        "completion_ids": torch.zeros(N, R, dtype=torch.long),
        "completion_mask": mask,
        "advantages": tensors["advantage"],
        "old_per_token_logps": tensors["old"],
        "ref_per_token_logps": tensors["reference"],
        "importance_sampling_ratio": torch.exp(tensors["old"] - tensors["sampler"]).clamp(max=CAP),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, batch)
    loss.backward()
    return loss.item(), logprobs.grad.numpy()


def main() -> None:
    given = inputs()
    arrays = {f"input/{name}": np.float32(value) for name, value in given.items()}
    for loss_type, ratio, delta, beta, corrected in itertools.product(
        ("grpo", "bnpo", "dr_grpo"), ("token", "sequence"), (0.0, 1.4), (0.0, 0.1), (False, True)
    ):
        loss, gradient = trl_loss(given, loss_type, ratio, delta, beta, corrected)
        case = f"{loss_type},{ratio},{delta},{beta},{'corrected' if corrected else 'plain'}"
        arrays[f"{case}/loss"], arrays[f"{case}/gradient"] = np.float32(loss), gradient
    np.savez_compressed("trl_grpo.npz", **arrays)


if __name__ == "__main__":
    main()
