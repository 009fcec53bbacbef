"""A progress bar for a big file, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from oomwatchd.words.escape import harmless

_LONGEST_NAME = 40


@contextmanager
def bar(
    name: str, size: int, shared: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[], AbstractContextManager[object]]]]:
    """Returns a function to call with the bytes read so far, and a context that hides the bar while something
    is written to the same terminal."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task(harmless(name)[-_LONGEST_NAME:], total=size)

    @contextmanager
    def away() -> Iterator[None]:
        progress.stop()
        try:
            yield
        finally:
            progress.start()

    with progress:
        yield (lambda read: progress.update(task, completed=read)), (away if shared else nullcontext)
