"""AdamW with warm-up, cosine decay and gradient clipping."""

import optax


def make_optimizer(config, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds the optimiser of `config.optimizer` for a run of `steps` updates, and its schedule.

    The learning rate rises linearly over the first `warmup_fraction` of the run and falls along a
    cosine to `final_fraction` of its peak.
    """
    c = config.optimizer
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=c.learning_rate,
        warmup_steps=max(1, round(c.warmup_fraction * steps)),
        decay_steps=max(2, steps),
        end_value=c.final_fraction * c.learning_rate,
    )
    transform = optax.chain(
        optax.clip_by_global_norm(c.clip_norm),
        optax.adamw(schedule, b1=c.b1, b2=c.b2, weight_decay=c.weight_decay),
    )
    return transform, schedule
