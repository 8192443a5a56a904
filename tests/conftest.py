"""What every test shares: programs compiled once are kept between test runs."""

from pathlib import Path

import jax


def pytest_configure(config):
    cache = Path(config.rootpath) / ".pytest_cache" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # jax keeps only what took a second to compile; tests compile many programs that take less.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
