"""Progress bars on stderr, so that what a command prints can be piped on."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Called with how many more are done, and how many there are.
Advance = Callable[[int, int], None]


@contextlib.contextmanager
def bar(title: str, quiet: bool = False) -> Iterator[Advance]:
    """Yields a function that moves a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    quiet = quiet or not console.is_terminal
    # Gone when done: what follows may be an error, which stands alone.
    with Progress(
        *columns, TimeRemainingColumn(), disable=quiet, console=console, transient=True
    ) as progress:
        task = progress.add_task(title, total=None)

        def advance(count: int, total: int) -> None:
            progress.update(task, advance=count, total=total)

        yield advance
