"""A progress line on stderr for what takes longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

QUIET_S = 1.0
REFRESH_S = 0.1


class ProgressLine:
    """Shows how far the world time of one run after another has come. Without a terminal it shows
    nothing."""

    def __init__(self, shown: bool = True) -> None:
        console = Console(stderr=True)
        self._shown = shown and console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
        )
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._task: TaskID | None = None
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
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(name, total=duration_ns)
        self._progress.update(self._task, completed=world_ns)

    def end(self) -> None:
        """Removes the line; what is printed next takes its place."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._progress.stop()
            self._task = None
