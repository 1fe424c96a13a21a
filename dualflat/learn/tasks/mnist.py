"""Handwritten digits, or anything in the MNIST format, by a small convolutional network."""

import numpy as np

from dualflat.contracts import Metrics, Options, PyTree
from dualflat.learn.idx import IdxError, Labelled, read_folder
from dualflat.learn.models import ConvNet
from dualflat.learn.supervised import ArrayExamples, Supervised, of_module
from dualflat.learn.tasks import DIGITS


def task(options: Options) -> Supervised:
    """The task `mnist`: two convolutions, a hidden layer, Adam at 1e-4, batches of 100.

    `options.data` is a folder in the MNIST format, images of any size divisible by 4, ten classes
    (MNIST, Fashion-MNIST, KMNIST, …), trained on for 10,000 steps. Without it, the 8 × 8 digits
    that come with the package, for 3,000 steps: a small fraction of the work.

    Raises:
      IdxError: the folder or a file in it is not in order.
      ValueError: an option is not usable.
    """
    train, test = read_folder(DIGITS if options.data is None else options.data)
    height, width = train.images.shape[1:]
    if height % 4 or width % 4:
        raise IdxError(
            f"{options.data}: images of {height} × {width} pixels; this network halves them twice,"
            " so height and width must be divisible by 4."
        )
    initialise, model = of_module(ConvNet(height, width), (height * width,))
    default_steps = 3_000 if options.data is None else 10_000
    return Supervised(
        name="mnist",
        initialise=initialise,
        model=model,
        train=_examples(train),
        test=_examples(test),
        batch_size=100 if options.batch_size is None else options.batch_size,
        max_steps=default_steps if options.max_steps is None else options.max_steps,
        optimizer="adam" if options.optimizer is None else options.optimizer,
        rate=1e-4 if options.learning_rate is None else options.learning_rate,
        precision=options.precision,  # type: ignore[arg-type]  checked by Supervised
        watch=_filters,
    )


def _examples(found: Labelled) -> ArrayExamples:
    flat = found.images.reshape(len(found.images), -1)  # the model's signature is flat pixels
    return ArrayExamples({"image": flat, "label": found.labels.astype(np.int32)})


def _filters(params: PyTree) -> Metrics:
    return {f"conv_filters{k}": params[f"convolution{k}"]["kernel"] for k in (1, 2)}
