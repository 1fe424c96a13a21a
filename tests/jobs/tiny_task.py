"""The tiny task by the way a user's own task takes: `--task tests.jobs.tiny_task:task`."""

import time

from tests.runtime.tiny import Blobs, Tiny


class SlowBlobs(Blobs):
    """Examples that take their time, so that there is a moment to kill the job in."""

    def __getitem__(self, rows):
        time.sleep(0.02)
        return super().__getitem__(rows)


def task(options):
    slow = options.data == "slow"
    return Tiny(
        max_steps=options.max_steps or 20,
        batch_size=options.batch_size or 16,
        optimizer=options.optimizer or "adam",
        train=SlowBlobs(200, 1) if slow else Blobs(200, 1),
    )
