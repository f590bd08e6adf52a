"""Work on all cores with results in order and little of it ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Threads suffice: decoders and encoders of pictures let go of Python's lock.
WORKERS = os.cpu_count() or 1
_AHEAD = 4


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], values: Iterable[T], workers: int = 0
) -> Iterator[R]:
    """`function` of each value, in order, a few of them computed ahead.

    Unlike the pool's own `map`, it takes values as it goes, so that memory stays bounded, and
    starts nothing more once one has failed.

    Args:
        pool: of threads.
        function: called in them.
        values: taken in the caller's thread.
        workers: threads in the pool; 0 means one per core.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for value in values:
            waiting.append(pool.submit(function, value))
            if len(waiting) > _AHEAD * (workers or WORKERS):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
