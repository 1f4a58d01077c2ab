"""What one session of pytest is to do. Checked at once when an option was given, and
otherwise when the first scenario is found."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshwake.runner.flags import RunFlags, as_typed_to_pytest

if TYPE_CHECKING:
    from meshwake.runner.choose import Chooser
    from meshwake.runner.options import Options


class Session:
    """The options of one session, and who chooses its cases."""

    def __init__(self, flags: RunFlags) -> None:
        self._flags = flags

    def begin(self, is_first: bool) -> None:
        """Checks the options; the first of several processes begins the report. Raises
        HarnessError."""
        # A project that has the plugin installed and no scenario pays nothing: the chooser looks
        # for binaries, and is made when the first scenario needs it.
        if self._flags != RunFlags():
            _ = self.chooser
        if self.report is not None and is_first:
            from meshwake.report.html.folder import begin_report

            begin_report(self.report, "--report")

    @property
    def report(self) -> Path | None:
        """The folder for pages, where pages are to be written."""
        return self._flags.report

    @cached_property
    def chooser(self) -> Chooser:
        """Chooses cases by the options. Raises HarnessError where these contradict each other."""
        from meshwake.runner.choose import Chooser
        from meshwake.runner.options import options_from

        return Chooser(options_from(self._flags))

    @property
    def options(self) -> Options:
        """As checked."""
        return self.chooser.options


# A row of the summary, until the next report of the test takes it along.
ROW = pytest.StashKey[str]()
SESSION = pytest.StashKey[Session]()


def as_typed_in(config: pytest.Config, message: str) -> str:
    """`message` about options, with the names that they have in this session."""
    if config.pluginmanager.has_plugin("meshwake.pytest_plugin.short_options"):
        return message
    return as_typed_to_pytest(message)
