import subprocess
import sys

PROGRAM = """
import sys
import dualflat
from jax._src import xla_bridge
print(sorted({"optax", "flax", "orbax"} & set(sys.modules)), xla_bridge.backends_are_initialized())
import jax.numpy as jnp
dualflat.bregman(dualflat.Categorical(2), jnp.zeros(2), jnp.ones(2))
print(xla_bridge.backends_are_initialized())
"""


def test_importing_dualflat_starts_no_device_and_no_trainer():
    """The last line is the control: the question can be answered with yes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[] False", "True"], done.stdout
