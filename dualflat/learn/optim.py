"""Update rules by name.

Every rule here is elementwise: one number of the parameters is moved by its own gradient and its
own memory, and by nothing else. So each may run on any shard of a model, and gives there what it
would have given on the whole.
"""

import math
from collections.abc import Callable

import optax

_RULES: dict[str, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]] = {
    "adabelief": optax.adabelief,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nadam": optax.nadam,
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}

NAMES = tuple(_RULES)


def by_name(name: str, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """The update rule `name`, with optax's defaults beside the learning rate; momentum is 0.9.

    Args:
      name: one of `NAMES`.
      rate: the learning rate, positive; or a schedule, step → rate.

    Raises:
      ValueError: the name is not known, or the rate is not a positive number.
    """
    if name not in _RULES:
        raise ValueError(f"optimizer {name!r} is not known; choose one of {', '.join(NAMES)}.")
    if not callable(rate) and not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"learning rate {rate} is not usable; it must be positive and finite.")
    return _RULES[name](rate)
