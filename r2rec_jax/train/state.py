"""What a training step changes."""

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """Everything that is differentiated, optimised and checkpointed.

    `trainable`: {'lora': ...} for an adapter over a frozen base, {'params': ...} for a full model.
    `step`: int32 [], updates done. Randomness is a function of the seed and the step, so there is
    no key to keep.
    """

    step: jax.Array
    trainable: dict
    opt_state: optax.OptState

    @classmethod
    def create(cls, trainable: dict, optimizer: optax.GradientTransformation) -> "TrainState":
        return cls(jnp.zeros((), jnp.int32), trainable, optimizer.init(trainable))

    def apply_gradients(self, grads: dict, optimizer: optax.GradientTransformation) -> "TrainState":
        updates, opt_state = optimizer.update(grads, self.opt_state, self.trainable)
        return TrainState(self.step + 1, optax.apply_updates(self.trainable, updates), opt_state)
