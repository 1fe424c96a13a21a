"""Eight simulated devices, float64 where a test asks for it, and meshes."""

import os

# Read when the JAX client starts, so before anything imports jax. PJRT_NPROC keeps eight simulated
# devices from waiting for each other for ever on two cores (jax ≤ 0.11).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("PJRT_NPROC", "16")
