"""What is promised in numbers, measured: `python -m benchmarks.NAME` prints JSON lines."""

import os

# LAPACK on a batch waits for threads of the pool that it runs on: on two cores a batch of Cholesky
# factors can wait for itself for ever (JAX 0.10). Threads are cheap.
os.environ.setdefault("PJRT_NPROC", "64")
