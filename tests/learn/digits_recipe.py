"""How dualflat/learn/tasks/digits was made; `python -m tests.learn.digits_recipe` makes it again.

The 1,797 images that scikit-learn carries, in its order, split by class: of each class, the first
fifth (rounded) of a Philox permutation is held out.
"""

from pathlib import Path

import numpy as np

import dualflat.learn.tasks
from dualflat.learn.idx import write_idx

FOLDER = Path(dualflat.learn.tasks.__file__).parent / "digits"
SEED = 1998  # the year in which the images were given to the UCI repository


def to_bytes(values: np.ndarray) -> np.ndarray:
    """0, …, 16 → 0, …, 255, to the nearest integer."""
    return ((values.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)


def to_values(pixels: np.ndarray) -> np.ndarray:
    """The inverse of `to_bytes`."""
    return (pixels.astype(np.int64) * 16 + 127) // 255


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and the test examples, ascending."""
    held_out = []
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        bits = np.random.Philox(key=np.array([SEED, digit], np.uint64)).random_raw(len(members))
        held_out.append(members[np.argsort(bits, kind="stable")][: round(len(members) / 5)])
    test = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), test), test


def files(values: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """File name → content."""
    pixels, labels = to_bytes(values), labels.astype(np.uint8)
    found = {}
    for prefix, rows in zip(("train", "t10k"), split(labels), strict=True):
        found[f"{prefix}-images-idx3-ubyte.gz"] = pixels[rows]
        found[f"{prefix}-labels-idx1-ubyte.gz"] = labels[rows]
    return found


if __name__ == "__main__":
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for name, content in files(bunch.images, bunch.target).items():
        write_idx(FOLDER / name, content)
