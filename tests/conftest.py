"""Eight simulated devices, meshes over them, and a task small enough to compile in a second."""

import atexit
import os
import shutil
import tempfile

# Read when the JAX client starts, so set before anything imports jax. PJRT_NPROC keeps eight
# simulated devices from waiting for each other for ever on two cores (jax ≤ 0.11).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("PJRT_NPROC", "16")

# Many tests build the same small programs anew, in this process and in others: compiled once, and
# for this run only, unless whoever runs the tests has said where.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dualflat-test-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import pytest
from hypothesis import settings

settings.register_profile("dualflat", deadline=None, derandomize=True, database=None)
settings.load_profile("dualflat")


@pytest.fixture(scope="session")
def mesh_of():
    """`mesh_of(4, 2)`: the mesh worker=4, ps=2 over the first eight simulated devices."""
    import jax

    from dualflat.runtime.placement import make_mesh

    return lambda worker, ps: make_mesh({"worker": worker, "ps": ps}, jax.devices()[: worker * ps])
