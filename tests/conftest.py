"""For all tests: silent broadcasting of ranks is an error, and a program is compiled once.

Stages jit their functions anew in every run, so that runs of one process share their programs
through the cache on disk alone, as runs of several processes do.
"""

import os

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Files that take longest: the processes of a run begin with them, so that at its end none works
# through a long one alone.
LONGEST = (
    "stages", "howto", "processes", "study", "readme", "audit", "devices", "interruptions",
    "lanczos", "hessian", "convolution", "lanczos_failures", "package", "sweep", "models",
    "ensemble", "objective", "long_numerics", "inputs", "plan", "theory", "trajectory", "lenet",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """One compilation cache for all processes of the tests, one of downloads for each.

    What one has compiled the others load, those of another run too where ANTISGD_CACHE_DIR names
    the cache. A program that is just being written is read as a damaged one, of which JAX warns,
    and compiled.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    compiled = os.environ.get("ANTISGD_CACHE_DIR", str(shared / "compiled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTISGD_CACHE_DIR", compiled)
        patch.setenv("XDG_CACHE_HOME", str(base / "downloads"))
        jax.config.update("jax_compilation_cache_dir", compiled)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield


@pytest.fixture(scope="module")
def quick_to_compile():
    """For tests whose programs are many and small, and whose digits no compiler decides."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
