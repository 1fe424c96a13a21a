"""The network: the same function as the textbook's, in another order."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dualflat.learn.models import ConvNet, convolve, halve


def reference(images, kernel):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


FORMS = {  # one for each form of the sum, and its borders
    "one channel": (8, 12, 1),
    "image smaller than the kernel": (4, 4, 3),
    "one side smaller": (4, 8, 3),
    "one pixel": (1, 1, 2),
    "as large as the kernel": (5, 5, 3),
    "large": (8, 8, 3),
}


@pytest.mark.parametrize(("height", "width", "channels"), FORMS.values(), ids=FORMS.keys())
def test_convolve_and_its_derivatives_are_the_textbooks(height, width, channels):
    a, b, c = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(a, (2, height, width, channels))
    kernel = jax.random.normal(b, (5, 5, channels, 4))
    covector = jax.random.normal(c, (2, height, width, 4))
    for ours, theirs in zip(
        _with_derivatives(convolve, images, kernel, covector),
        _with_derivatives(reference, images, kernel, covector),
        strict=True,
    ):
        # Sums of at most 25·4 + 2·96 unit terms in another order: a few ε of their norm.
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-5)


def _with_derivatives(f, images, kernel, covector):
    value, pull = jax.jit(lambda x, k: jax.vjp(f, x, k))(images, kernel)
    return value, *pull(covector)


def test_convolve_takes_other_odd_kernels():
    images = jax.random.normal(jax.random.key(0), (2, 2, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 7, 3, 2))
    np.testing.assert_allclose(convolve(images, kernel), reference(images, kernel), atol=2e-5)


def test_halve_is_max_pooling():
    images = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    weight = jax.random.normal(jax.random.key(1), (2, 2, 3, 3))

    def pool(images):
        return nn.max_pool(images, (2, 2), (2, 2))

    np.testing.assert_array_equal(halve(images), pool(images))
    ours, theirs = (jax.grad(lambda x, f=f: (f(x) * weight).sum())(images) for f in (halve, pool))
    np.testing.assert_array_equal(ours, theirs)


class Textbook(nn.Module):
    """The same network, as one would write it with flax's own layers."""

    @nn.compact
    def __call__(self, images):
        h = images.reshape(-1, 8, 8, 1)
        for filters, name in ((32, "convolution1"), (64, "convolution2")):
            h = nn.max_pool(nn.relu(nn.Conv(filters, (5, 5), name=name)(h)), (2, 2), (2, 2))
        h = nn.relu(nn.Dense(1024, name="hidden")(h.reshape(h.shape[0], -1)))
        return nn.Dense(10, name="output")(h)


@pytest.fixture(scope="module")
def params():
    found = ConvNet(8, 8).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    # Not the zeros it starts with, which would hide everything before the output layer.
    found["output"]["kernel"] = 0.01 * jax.random.normal(jax.random.key(1), (1024, 10))
    return found


def test_is_the_textbooks_network(params):
    images = jax.random.uniform(jax.random.key(2), (3, 64))

    def loss(params, module):
        return (module.apply({"params": params}, images) ** 2).sum()

    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda p, m=m: loss(p, m)))(params)
        for m in (ConvNet(8, 8), Textbook())
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_starts_as_the_classic_does():
    params = ConvNet(28, 28).init(jax.random.key(3), jnp.zeros((1, 784)))["params"]
    shapes = jax.tree.map(lambda p: p.shape, params)
    assert shapes == {
        "convolution1": {"kernel": (5, 5, 1, 32), "bias": (32,)},
        "convolution2": {"kernel": (5, 5, 32, 64), "bias": (64,)},
        "hidden": {"kernel": (3136, 1024), "bias": (1024,)},
        "output": {"kernel": (1024, 10), "bias": (10,)},
    }
    assert type(params) is dict
    # A normal law cut at two standard deviations has 0.8796 of its standard deviation left.
    for layer, scale, atol in (("convolution2", 0.1, 1e-3), ("hidden", 1.0, 2e-3)):
        kernel = np.asarray(params[layer]["kernel"])
        assert kernel.std() == pytest.approx(0.8796 * scale, abs=atol)
        assert np.abs(kernel).max() <= 2 * scale
        assert np.abs(kernel).max() > 1.9 * scale
    assert np.abs(params["convolution1"]["kernel"]).max() <= 0.2
    for layer in ("convolution1", "convolution2", "hidden"):
        assert (np.asarray(params[layer]["bias"]) == np.float32(0.1)).all()
    assert not np.asarray(params["output"]["kernel"]).any()
    assert not np.asarray(params["output"]["bias"]).any()


def test_dropout_is_drawn_in_training_only(params):
    images = jax.random.uniform(jax.random.key(2), (3, 64))
    net = ConvNet(8, 8)

    @jax.jit
    def train(key):
        return net.apply({"params": params}, images, train=True, rngs={"dropout": key})

    still = net.apply({"params": params}, images)
    a, b, again = train(jax.random.key(0)), train(jax.random.key(1)), train(jax.random.key(0))
    np.testing.assert_array_equal(a, again)
    assert not np.allclose(a, b)
    mean = jnp.stack([train(jax.random.key(k)) for k in range(200)]).mean(0)
    spread = float(jnp.std(jnp.stack([train(jax.random.key(k)) for k in range(20)])))
    np.testing.assert_allclose(mean, still, atol=6 * spread / 200**0.5)  # kept units count double


def test_refuses_sizes_that_cannot_be_halved_twice():
    for size in ((6, 8), (8, 10), (0, 8)):
        with pytest.raises(ValueError, match="divisible by 4"):
            ConvNet(*size)
