"""The order of the data, and the thread that keeps batches ready."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualflat.runtime.feed import Feed, evaluation_batches, rows

sizes = st.integers(1, 40)


class Numbers:
    """Example k is the number k. Breaks at one example, if told to."""

    def __init__(self, size, broken=None):
        self.size, self.broken, self.reads = size, broken, 0

    def __len__(self):
        return self.size

    def __getitem__(self, wanted):
        self.reads += 1
        if self.broken is not None and self.broken in wanted:
            raise OSError("the disk is gone")
        return {"x": np.asarray(wanted), "y": np.stack([wanted, wanted], axis=1)}


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "dualflat-feed"]


@settings(deadline=None)
@given(seed=st.integers(0, 2**64 - 1), batch_size=sizes, size=sizes)
def test_every_example_once_per_epoch(seed, batch_size, size):
    steps = -(-3 * size // batch_size)
    stream = np.concatenate([rows(seed, step, batch_size, size) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@settings(deadline=None)
@given(start=st.integers(0, 10**12), a=sizes, b=sizes, size=sizes)
def test_the_batch_size_only_cuts_the_stream(start, a, b, size):
    """Steps from start·b of size a, and from start·a of size b, read the same stream."""
    long = np.concatenate([rows(7, start * b + k, a, size) for k in range(b)])
    other = np.concatenate([rows(7, start * a + k, b, size) for k in range(a)])
    np.testing.assert_array_equal(long, other)


def test_the_order_is_pinned():
    """What no later version of numpy or of this library may change: resumed runs depend on it."""
    assert rows(0, 0, 8, 10).tolist() == PINNED[0]
    assert rows(2**64 - 1, 10**9, 8, 10).tolist() == PINNED[1]
    assert not np.array_equal(rows(0, 0, 40, 40), rows(1, 0, 40, 40))
    assert not np.array_equal(rows(0, 0, 40, 40), rows(0, 1, 40, 40))


PINNED = ([0, 2, 9, 1, 8, 5, 4, 3], [3, 4, 6, 7, 9, 8, 1, 0])


@pytest.mark.parametrize(
    "bad", [(-1, 0, 1, 1), (2**64, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)]
)
def test_rows_refuses_what_is_out_of_range(bad):
    with pytest.raises(ValueError, match=r"must be|at least"):
        rows(*bad)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_feed_resumes_exactly_and_parts_make_the_whole(prefetch):
    data = Numbers(23)

    def taken(count, **more):
        with Feed(data, batch_size=6, seed=5, prefetch=prefetch, **more) as feed:
            return [next(feed) for _ in range(count)]

    whole = taken(9)
    assert [step for step, _ in whole] == list(range(9))
    for step, batch in whole:
        np.testing.assert_array_equal(batch["x"], rows(5, step, 6, 23))
        assert batch["y"].shape == (6, 2)
    for (step, batch), (again, resumed) in zip(whole[4:], taken(5, start=4), strict=True):
        assert step == again
        np.testing.assert_array_equal(batch["x"], resumed["x"])
    left, right = taken(9, part=slice(0, 2)), taken(9, part=slice(2, 6))
    for (_, batch), (_, a), (_, b) in zip(whole, left, right, strict=True):
        np.testing.assert_array_equal(batch["x"], np.concatenate([a["x"], b["x"]]))


def test_prefetches_as_many_as_told_and_no_more():
    data = Numbers(50)
    with Feed(data, batch_size=5, seed=0, prefetch=2) as feed:
        next(feed)
        deadline = time.monotonic() + 20
        while data.reads < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert data.reads == 4  # one handed out, two waiting, one in the thread's hand


def test_the_thread_ends_with_the_block():
    before = len(threads())
    feed = Feed(Numbers(50), batch_size=5, seed=0)
    assert len(threads()) == before  # a promise costs nothing
    with feed:
        next(feed)
        assert len(threads()) == before + 1
    assert len(threads()) == before
    feed.close()
    assert list(feed) == []
    with pytest.raises(KeyError, match="the caller's"), Feed(Numbers(9), batch_size=2, seed=0):
        raise KeyError("the caller's")
    assert len(threads()) == before


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_is_raised_where_the_batch_would_have_come(prefetch):
    order = rows(3, 0, 50, 50)
    with Feed(Numbers(50, broken=order[17]), batch_size=5, seed=3, prefetch=prefetch) as feed:
        for step in range(3):
            assert next(feed)[0] == step
        for _ in range(2):  # and again: there is no batch after it
            with pytest.raises(OSError, match="the disk is gone"):
                next(feed)


def test_a_consumer_that_waits_is_woken_by_close():
    gate = threading.Event()

    class Slow(Numbers):
        def __getitem__(self, wanted):
            gate.wait(20)
            return super().__getitem__(wanted)

    feed = Feed(Slow(9), batch_size=2, seed=0)
    found = []
    consumer = threading.Thread(target=lambda: found.extend(feed))
    consumer.start()
    closer = threading.Thread(target=feed.close)
    closer.start()
    consumer.join(20)
    assert not consumer.is_alive()
    gate.set()
    closer.join(20)
    assert not closer.is_alive()
    assert found == []


@settings(deadline=None)
@given(size=sizes, batch_size=sizes, cut=st.integers(0, 40))
def test_evaluation_counts_every_example_once(size, batch_size, cut):
    cut = 1 + cut % max(batch_size - 1, 1)
    parts = [slice(None)] if cut >= batch_size else [slice(0, cut), slice(cut, None)]
    counted = np.zeros(size)
    for part in parts:
        for batch, weight in evaluation_batches(Numbers(size), batch_size, part):
            assert weight.dtype == np.float32
            assert len(batch["x"]) == len(weight) == len(range(batch_size)[part])
            np.add.at(counted, batch["x"], weight)
    np.testing.assert_array_equal(counted, 1)


def test_refuses_at_the_door():
    for more, words in [
        ({"batch_size": 0}, "at least one"),
        ({"seed": -1}, "at least 0"),
        ({"start": -1}, "start at 0"),
        ({"prefetch": -1}, "0 \\(no thread\\) or more"),
        ({"part": slice(4, 4)}, "selects no row"),
    ]:
        with pytest.raises(ValueError, match=words):
            Feed(Numbers(9), **{"batch_size": 4, "seed": 0, **more})
    with pytest.raises(ValueError, match="at least one"):
        Feed(Numbers(0), batch_size=4, seed=0)
    with pytest.raises(ValueError, match="cannot cut 0 examples"):
        evaluation_batches(Numbers(0), 4)
    with pytest.raises(ValueError, match="selects no row"):
        evaluation_batches(Numbers(9), 4, slice(4, None))


def test_refuses_arrays_that_do_not_count_the_rows():
    class Wrong(Numbers):
        def __getitem__(self, wanted):
            return {"x": np.zeros(3)}

    with pytest.raises(ValueError, match=r"'x' with shape \(3,\) for 4 rows"):
        next(Feed(Wrong(9), batch_size=4, seed=0, prefetch=0))


def test_one_batch_is_cheap():
    """0.5 ms of this process's time for a batch of the size of MNIST; the best of several tries."""

    class Mnist(Numbers):
        images = np.zeros((60_000, 784), np.uint8)

        def __getitem__(self, wanted):
            return {"image": self.images[wanted]}

    feed = Feed(Mnist(60_000), batch_size=100, seed=0, prefetch=0)
    next(feed)  # draws the epoch's permutation
    best = np.inf
    for _ in range(5):
        began = time.process_time()
        for _ in range(50):
            next(feed)
        best = min(best, (time.process_time() - began) / 50)
    assert best < 0.5e-3
