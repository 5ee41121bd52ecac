"""Process of a test: it ends with the test, also with one that fails."""

from __future__ import annotations

import subprocess
from types import TracebackType

__all__ = ["ChildProcess"]


class ChildProcess(subprocess.Popen[str]):
    """Process whose context waits for its end, and kills it first if the test has failed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        super().__exit__(kind, error, traceback)

    def read_errors_until(self, text: str) -> str:
        """Read standard error up to a line that holds *text*, and return that line."""
        assert self.stderr is not None
        for line in self.stderr:
            if text in line:
                return line
        raise AssertionError(f"the process ended without {text!r}")
