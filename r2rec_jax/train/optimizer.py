"""AdamW with warm-up, cosine decay and gradient clipping."""

import optax

from r2rec_jax.train.config import OptimizerConfig


def learning_rate(c: OptimizerConfig, steps: int) -> optax.Schedule:
    """The rate of update 0, 1, .. of a run of `steps` updates.

    It rises linearly over the first `warmup_fraction` of the run, reaches its peak with the last of
    these updates, and falls along a cosine to `final_fraction` of the peak.
    """
    rise_and_fall = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=c.learning_rate,
        warmup_steps=max(1, round(c.warmup_fraction * steps)),
        decay_steps=max(2, steps),
        end_value=c.final_fraction * c.learning_rate,
    )
    # From 1: at a rate of 0 the first update would be lost.
    return lambda count: rise_and_fall(count + 1)


def make_optimizer(c: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Builds the optimiser of an `optimizer` section for a run of `steps` updates."""
    return optax.chain(
        optax.clip_by_global_norm(c.clip_norm),
        optax.adamw(learning_rate(c, steps), b1=c.b1, b2=c.b2, weight_decay=c.weight_decay),
    )
