"""Models as flax modules, arranged for what XLA does well on a CPU too.

The arithmetic of each layer is the textbook's; only its order differs, and with it the rounding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


def convolve(images: Array, kernel: Array) -> Array:
    """Cross-correlation with zero padding to the same size, stride 1.

        y[b, i, j, o] = Σ_{u,v,c} x[b, i + u − ⌊h/2⌋, j + v − ⌊w/2⌋, c] k[u, v, c, o]

    Three forms of this one sum, chosen by shape alone, measured in benchmarks/step.py:

    - one input channel: all shifts side by side, one matrix product. The derivative by the kernel
      is then a matrix product too; XLA's own takes twice as long on a CPU.
    - an image smaller than the kernel: one matrix product per row of the kernel. XLA's CPU
      back end has no fast convolution here and falls to a loop that takes ten times as long.
    - otherwise `lax.conv_general_dilated`, at the speed of a matrix product already.

    Args:
      images: shape (batch, height, width, channels).
      kernel: shape (h, w, channels, filters), h and w odd.

    Returns:
      shape (batch, height, width, filters).
    """
    rows, columns, channels, filters = kernel.shape
    _, height, width, _ = images.shape
    if channels > 1 and min(height, width) >= min(rows, columns):
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    padding = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded = jnp.pad(images, padding)
    beside = jnp.concatenate([padded[:, :, v : v + width] for v in range(columns)], axis=-1)
    if channels == 1:
        patches = jnp.concatenate([beside[:, u : u + height] for u in range(rows)], axis=-1)
        return patches @ kernel.reshape(-1, filters)
    lines = kernel.reshape(rows, columns * channels, filters)
    total = beside[:, :height] @ lines[0]
    for u in range(1, rows):
        total = total + beside[:, u : u + height] @ lines[u]
    return total


def halve(images: Array) -> Array:
    """Largest value in each 2 × 2 block: (batch, height, width, c) → (batch, height/2, width/2, c).

    The maximum of four strided slices. `lax.reduce_window` gives the same values, but on a CPU its
    derivative costs thirty times as much. Where values tie, they share the derivative.
    """
    top, bottom = images[:, ::2], images[:, 1::2]
    return jnp.maximum(
        jnp.maximum(top[:, :, ::2], top[:, :, 1::2]),
        jnp.maximum(bottom[:, :, ::2], bottom[:, :, 1::2]),
    )


class Convolution(nn.Module):
    """5 × 5 convolution, bias, rectifier, 2 × 2 max-pooling.

    The maximum is taken first. It commutes with adding a constant and with the rectifier, both
    being monotone, also in floating point; so the values are the same and a quarter of the work
    remains.
    """

    filters: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """(batch, height, width, channels) → (batch, height/2, width/2, filters)."""
        shape = (5, 5, images.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.truncated_normal(0.1), shape)
        bias = self.param("bias", nn.initializers.constant(0.1), (self.filters,))
        return nn.relu(halve(convolve(images, kernel)) + bias.reshape(1, 1, 1, -1))


class ConvNet(nn.Module):
    """Two convolutions, a hidden layer with dropout, and ten scores: the classical MNIST network.

    Normal laws are cut at two standard deviations and not rescaled. The hidden layer starts with
    standard deviation 1 and the output layer at zero: every class is equally likely at first.

    Attributes:
      height, width: of the images, divisible by 4.
      classes: how many scores.
      units: size of the hidden layer.
      dropout: the chance of a hidden unit to be left out of a training step.
    """

    height: int
    width: int
    classes: int = 10
    units: int = 1024
    dropout: float = 0.5

    def __post_init__(self):
        if self.height < 4 or self.width < 4 or self.height % 4 or self.width % 4:
            raise ValueError(
                f"ConvNet: images of {self.height} × {self.width} pixels cannot be halved twice;"
                " height and width must be divisible by 4. Pad the images."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Scores (logits), shape (batch, classes), of images with shape (batch, height × width).

        With `train`, dropout draws from the random stream named `dropout`.
        """
        h = images.reshape(-1, self.height, self.width, 1)
        h = Convolution(32, name="convolution1")(h)
        h = Convolution(64, name="convolution2")(h)
        h = h.reshape(-1, (self.height // 4) * (self.width // 4) * 64)
        constant, normal = nn.initializers.constant(0.1), nn.initializers.truncated_normal(1.0)
        h = nn.relu(nn.Dense(self.units, kernel_init=normal, bias_init=constant, name="hidden")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="output")(h)
