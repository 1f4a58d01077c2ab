"""A progress line on stderr for what takes longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_S = 1.0
REFRESH_S = 0.1


class ProgressLine:
    """Shows how far the world time of one run after another has come. Without a terminal it shows
    nothing."""

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(stderr=True)
        self._shown = shown and self._console.is_terminal
        # While a line is shown. Most runs on the model end before that, and import no bar.
        self._line: tuple[Progress, TaskID] | None = None
        self._started_s = self._shown_s = 0.0

    def watch(self, name: str, duration_ns: int) -> Callable[[int], None]:
        """What a lab calls, often, with the world time it has reached."""
        self.end()
        self._started_s = self._shown_s = time.monotonic()

        def progress(world_ns: int) -> None:
            if not self._shown:
                return
            now_s = time.monotonic()

            # A run of less than a second shows no line at all, a longer one ten a second.
            is_long = now_s - self._started_s > QUIET_S
            if is_long and now_s - self._shown_s > REFRESH_S:
                self._shown_s = now_s
                self._show(name, world_ns, duration_ns)

        return progress

    def _show(self, name: str, world_ns: int, duration_ns: int) -> None:
        if self._line is None:
            progress = _progress_on(self._console)
            progress.start()
            self._line = progress, progress.add_task(name, total=duration_ns)
        progress, task = self._line
        progress.update(task, completed=world_ns)

    def end(self) -> None:
        """Removes the line; what is printed next takes its place."""
        if self._line is not None:
            progress, task = self._line
            progress.remove_task(task)
            progress.stop()
            self._line = None


def _progress_on(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
