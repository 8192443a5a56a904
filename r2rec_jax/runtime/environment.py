"""Sets the environment of a process before it imports JAX. Variables that are already set are kept.

BUILD.md has the measurement behind each setting. Other XLA flags keep their defaults; none was measured to
help.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from r2rec_jax.runtime.errors import shown
from r2rec_jax.runtime.library_workarounds import drop_torn_programs

HUGE_PAGES = "glibc.malloc.hugetlb=1"
LOG_LEVEL = "1"  # XLA logs warnings and errors
OFF, ON = ("0", "false", "off", "no", "n", "f"), ("1", "true", "on", "yes", "y", "t")
# JAX settings that change random numbers or rounding -> the values that are allowed. Debugging settings
# (JAX_DEBUG_NANS, JAX_TRANSFER_GUARD, ...) and those for devices and caches are free.
NUMBERS = {
    "JAX_ENABLE_X64": OFF,
    "JAX_EXPLICIT_X64_DTYPES": ("warn", "error"),
    "JAX_NUMPY_DTYPE_PROMOTION": ("standard",),
    "JAX_DEFAULT_MATMUL_PRECISION": ("default",),
    "JAX_DEFAULT_PRNG_IMPL": ("threefry2x32",),
    "JAX_THREEFRY_PARTITIONABLE": ON,
    "JAX_RANDOM_SEED_OFFSET": ("0",),
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": OFF,
    "JAX_DISABLE_JIT": OFF,
}
XLA_NUMBERS = ("xla_cpu_enable_fast_math", "xla_gpu_enable_fast_min_max")


def settle(command: list[str]) -> None:
    """Sets the environment of this process, and re-executes it as `command` where a setting needs it.

    Exits with an error if the environment would change numbers. Installs handlers that exit at a signal.

    Args:
      command: `sys.orig_argv`, the interpreter first.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    refuse_other_numbers()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", LOG_LEVEL)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled_folder()))
    # XLA allocates and frees a step's buffers with malloc, and each 4 KB page faults again. Huge pages reduce
    # that. glibc reads the setting at process start, so the process is re-executed.
    if sys.platform == "linux" and _is_glibc() and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *command[1:]])
    drop_torn_programs(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


def _interrupted(*_) -> NoReturn:
    """Exits at a signal during imports, before r2rec_jax/cli/signals.py takes over; nothing needs saving."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def refuse_other_numbers() -> None:
    """Exits with a one-line error if the environment changes JAX's random numbers or rounding.

    Otherwise a run would silently give other results.
    """
    changes = {name: os.environ[name] for name in NUMBERS if os.environ.get(name)}
    changes = {name: value for name, value in changes.items() if value.lower() not in NUMBERS[name]}
    for flag in os.environ.get("XLA_FLAGS", "").split():
        name, _, value = flag.lstrip("-").partition("=")
        if name in XLA_NUMBERS and value.lower() not in OFF:
            changes["XLA_FLAGS"] = flag
    if changes:
        settings = ", ".join(f"{name}={shown(value, 80)}" for name, value in changes.items())
        print(f"error: the environment has {settings}, which changes numbers: unset it", file=sys.stderr)
        sys.exit(2)


def compiled_folder() -> Path:
    """The default folder of JAX's compilation cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "r2rec_jax" / "compiled"


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return False
