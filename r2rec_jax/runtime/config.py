"""The `mesh` and `profile` sections of a config."""

from r2rec_jax.runtime.fields import Section, declaration, field
from r2rec_jax.runtime.ranges import Text, whole


@declaration
class MeshConfig(Section):
    """Number of devices along each axis of the mesh."""

    WHERE = "mesh"
    data: int = field(-1, "Devices that replicate parameters and split the batch; -1: all.", whole(1, off=-1))
    fsdp: int = field(1, "Devices that split both the batch and every parameter.", whole(1))
    tensor: int = field(1, "Devices that split heads, feed-forward and vocabulary.", whole(1))


@declaration
class ProfileConfig(Section):
    """Profiler trace of some training steps."""

    WHERE = "profile"
    steps: str = field(
        "",
        "Steps that are traced into WORKDIR/trace; '': none.",
        Text(r"(\d{1,9}:\d{1,9})?", "FIRST:LAST, e.g. 100:105, or '' for no trace"),
    )
