"""Compile apart, then the median and the quartiles of ready results."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def measure(fn: Callable[..., Any], *args: Any, repeats: int = 31) -> tuple[Any, dict[str, float]]:
    """The value of jit(fn)(*args), and what it cost.

    Returns:
      value: as computed.
      cost: `compile_ms`; `median_us`, `low_us`, `high_us`: median and quartiles over `repeats`
        calls, each waited for. One call before them is not counted.
    """
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    compile_ms = 1e3 * (time.perf_counter() - start)
    value = jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(1e6 * (time.perf_counter() - start))
    low, median, high = np.percentile(times, [25, 50, 75])
    cost = {"compile_ms": compile_ms, "median_us": median, "low_us": low, "high_us": high}
    return value, {name: round(float(figure), 1) for name, figure in cost.items()}
