"""Which examples make which batch, and having them ready in time.

The order of the data is a pure function of (seed, step). So a run resumed at step s needs no saved
iterator, another number of hosts reads the same global batches, and a replay sees what the run saw.
"""

import functools
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType

import numpy as np

from dualflat.contracts import Examples

Arrays = dict[str, np.ndarray]

RULE = "philox-argsort-1"  # names what `rows` computes, for the record of a run


def rows(seed: int, step: int, batch_size: int, size: int) -> np.ndarray:
    """The examples of global batch `step`, as numbers.

    Batches cut one endless stream into pieces. Position p of the stream belongs to epoch
    e = p // size and holds example π_e(p mod size), where π_e is a permutation that depends on
    (seed, e) alone; so every example comes once per epoch, and a batch may span two epochs.

    π_e sorts the raw output of Philox with key (seed, e). Both the generator's raw bits and a
    stable sort are fixed by definition, so the order outlives numpy's versions, which the methods
    of `numpy.random.Generator` do not promise.

    Args:
      seed: 0 ≤ seed < 2⁶⁴.
      step: ≥ 0, the number of the batch.
      batch_size: ≥ 1, may exceed `size`.
      size: ≥ 1, how many examples there are.

    Returns:
      int64, shape (batch_size,), read-only: values in [0, size).

    Raises:
      ValueError: an argument is out of its range.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed is {seed}; it must be at least 0 and below 2**64.")
    if step < 0 or batch_size < 1 or size < 1:
        raise ValueError(
            f"step {step}, batch_size {batch_size}, size {size}: steps start at 0, and batches and"
            " data sets hold at least one example."
        )
    found = np.empty(batch_size, np.int64)
    filled = 0
    while filled < batch_size:
        epoch, offset = divmod(step * batch_size + filled, size)
        piece = _permutation(seed, epoch, size)[offset : offset + batch_size - filled]
        found[filled : filled + len(piece)] = piece
        filled += len(piece)
    found.flags.writeable = False
    return found


@functools.lru_cache(maxsize=2)  # the epoch at hand and, across its end, the next
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
    return np.argsort(bits, kind="stable")


class Feed:
    """Batches in the order of `rows`, from step `start` on, without end.

        with Feed(task.train, batch_size=100, seed=0, start=restored_step) as feed:
            for step, batch in feed: ...

    A background thread keeps `prefetch` batches ready. The thread ends with the `with` block, or
    with `close`; what goes wrong in it is raised by the `next` that would have given that batch.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        part: slice = slice(None),
        prefetch: int = 2,
    ):
        """Promise the batches; nothing is read before the first `next` or `with`.

        Args:
          examples: what to read.
          batch_size: examples in one global batch.
          seed: names the order, see `rows`.
          start: the step of the first batch.
          part: which rows of each global batch to read: this process's share.
          prefetch: how many batches may wait; 0 reads in the caller's thread.

        Raises:
          ValueError: a number is out of range, there are no examples, or `part` selects none.
        """
        if prefetch < 0:
            raise ValueError(f"prefetch is {prefetch}; it must be 0 (no thread) or more.")
        rows(seed, start, batch_size, len(examples))  # what it would raise, raise at the door
        if not range(batch_size)[part]:
            raise ValueError(f"part {part} selects no row of a batch of {batch_size}.")
        self._examples, self._batch_size, self._seed, self._part = examples, batch_size, seed, part
        self._step = start  # the next to hand out
        self._prefetch = prefetch
        self._ready: deque[Arrays | BaseException] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[tuple[int, Arrays]]:
        return self

    def __next__(self) -> tuple[int, Arrays]:
        """The next step's number and batch.

        Raises:
          Exception: what reading the batch raised, again at every later call.
          StopIteration: the feed is closed.
        """
        if not self._prefetch:
            if self._closed:
                raise StopIteration
            batch = self._read(self._step)
        else:
            self._begin()
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._closed)
                if self._closed:
                    raise StopIteration
                batch = self._ready[0]
                if isinstance(batch, BaseException):
                    raise batch  # it stays in the queue: the order has no batch after this one
                self._ready.popleft()
                self._changed.notify_all()
        self._step += 1
        return self._step - 1, batch

    def __enter__(self) -> "Feed":
        if self._prefetch:
            self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and wait until it has ended. Safe to call twice, from any thread."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _begin(self) -> None:
        with self._changed:  # or `close` could meet a thread that is made and not yet started
            if self._thread is None and not self._closed:
                # A daemon: a process that forgot to close its feed must still be able to end.
                self._thread = threading.Thread(
                    target=self._fill, args=(self._step,), name="dualflat-feed", daemon=True
                )
                self._thread.start()

    def _fill(self, step: int) -> None:
        while True:
            try:
                item: Arrays | BaseException = self._read(step)
            except BaseException as error:
                item = error
            with self._changed:
                self._changed.wait_for(lambda: len(self._ready) < self._prefetch or self._closed)
                if self._closed:
                    return
                self._ready.append(item)
                self._changed.notify_all()
            if isinstance(item, BaseException):
                return
            step += 1

    def _read(self, step: int) -> Arrays:
        wanted = rows(self._seed, step, self._batch_size, len(self._examples))[self._part]
        return _take(self._examples, wanted)


def evaluation_batches(
    examples: Examples, batch_size: int, part: slice = slice(None)
) -> Iterator[tuple[Arrays, np.ndarray]]:
    """Every example once, in order, in batches of one size: (batch, weight).

    The last batch is filled up with copies of the last example, whose weight is 0; so no example
    is lost and none counts twice in a sum of weight × anything.

    Args:
      examples: what to read; at least one.
      batch_size: ≥ 1, rows in a global batch.
      part: which rows of each global batch to read: this process's share.

    Returns:
      an iterator; weights are float32, shape (rows of the part,), 1 or 0.

    Raises:
      ValueError: there are no examples, or a number is out of range.
    """
    size = len(examples)
    if size < 1 or batch_size < 1:
        raise ValueError(f"cannot cut {size} examples into batches of {batch_size}.")
    if not range(batch_size)[part]:
        raise ValueError(f"part {part} selects no row of a batch of {batch_size}.")

    def batches() -> Iterator[tuple[Arrays, np.ndarray]]:
        for first in range(0, size, batch_size):
            wanted = np.arange(first, first + batch_size, dtype=np.int64)[part]
            weight = (wanted < size).astype(np.float32)
            yield _take(examples, np.minimum(wanted, size - 1)), weight

    return batches()


def _take(examples: Examples, wanted: np.ndarray) -> Arrays:
    found: Mapping[str, np.ndarray] = examples[wanted]
    for name, array in found.items():
        if np.shape(array)[:1] != (len(wanted),):
            raise ValueError(
                f"examples[rows] gave {name!r} with shape {np.shape(array)} for {len(wanted)} rows;"
                " the leading axis must count the rows."
            )
    return dict(found)
