"""Eight simulated devices, meshes over them, and a task small enough to compile in a second."""

import os

# Read when the JAX client starts, so set before anything imports jax. PJRT_NPROC keeps eight
# simulated devices from waiting for each other for ever on two cores (jax ≤ 0.11).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("PJRT_NPROC", "16")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("dualflat", deadline=None, derandomize=True, database=None)
settings.load_profile("dualflat")


@pytest.fixture(scope="session")
def mesh_of():
    """`mesh_of(4, 2)`: the mesh worker=4, ps=2 over the first eight simulated devices."""
    import jax

    from dualflat.runtime.placement import make_mesh

    return lambda worker, ps: make_mesh({"worker": worker, "ps": ps}, jax.devices()[: worker * ps])
