"""Steps compiled with explicit shardings and donated state."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from r2rec_jax.runtime.mesh import batch_sharding, replicated, working_on
from r2rec_jax.train.state import TrainState


def state_shardings(state: TrainState, mesh: Mesh):
    """The sharding of each leaf; leaves without a rule (step counters) are replicated."""
    everywhere = replicated(mesh)
    return jax.tree.map(
        lambda x: x.sharding if isinstance(x.sharding, type(everywhere)) else everywhere, state
    )


def place_state(state: TrainState, mesh: Mesh) -> TrainState:
    """The state with the shardings that a step returns; other shardings would compile the step twice."""
    # What lies elsewhere goes by the host: from a device, jax 0.11.2 makes arrays that cannot be saved where
    # each process of several has one device.
    return jax.tree.map(
        lambda x, there: x if x.sharding == there else jax.device_put(np.asarray(x), there),
        state,
        state_shardings(state, mesh),
    )


def jit_step(step: Callable, state: TrainState, frozen, mesh: Mesh) -> Callable:
    """Compiles `step(state, frozen, batch) -> (state, metrics)`: batch split, state donated.

    `state` and `frozen` are arrays or jax.ShapeDtypeStructs that carry their shardings.
    """
    of_state = state_shardings(state, mesh)
    where = functools.partial(jax.tree.map, lambda leaf: leaf.sharding)

    def placed_step(state, frozen, batch):
        with working_on(mesh):
            return step(state, frozen, batch)

    return jax.jit(
        placed_step,
        in_shardings=(of_state, where(frozen), batch_sharding(mesh)),
        out_shardings=(of_state, replicated(mesh)),
        donate_argnums=0,
    )
