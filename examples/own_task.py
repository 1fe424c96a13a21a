"""A model of your own, trained by the same command as everything else.

    dualflat train --task examples.own_task:task --max-steps 300

Two pure functions make the model, `Supervised` makes the task: checkpoints, resuming, several
devices and processes, TensorBoard, export and `dualflat predict` come with it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dualflat.contracts import Options
from dualflat.learn.idx import read_folder
from dualflat.learn.supervised import ArrayExamples, Supervised
from dualflat.learn.tasks.mnist import DIGITS

HIDDEN = 128


def task(options: Options) -> Supervised:
    """What `--task` names: from the user's options to a task."""
    train, test = read_folder(options.data or DIGITS)
    pixels = train.images[0].size

    def initialise(key):
        a, b = jax.random.split(key)
        return {
            "hidden": {"w": jax.random.normal(a, (pixels, HIDDEN)) / pixels**0.5, "b": jnp.zeros(HIDDEN)},
            "output": {"w": jax.random.normal(b, (HIDDEN, 10)) / HIDDEN**0.5, "b": jnp.zeros(10)},
        }  # fmt: skip

    def model(params, image, key):  # a key means training: the place for dropout and other noise
        h = jax.nn.relu(image @ params["hidden"]["w"] + params["hidden"]["b"])
        return h @ params["output"]["w"] + params["output"]["b"]

    def examples(found):
        flat = found.images.reshape(len(found.images), -1)  # uint8: scaled to [0, 1] in the step
        return ArrayExamples({"image": flat, "label": found.labels.astype(np.int32)})

    return Supervised(
        name="own", initialise=initialise, model=model, train=examples(train), test=examples(test),
        batch_size=options.batch_size or 100, max_steps=options.max_steps or 1000,
        optimizer=options.optimizer or "adam", rate=options.learning_rate or 1e-3,
        precision=options.precision,
    )  # fmt: skip
