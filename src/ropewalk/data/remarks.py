"""What is said of texts while they are read, to be said again where their tokens are kept.

in   what ropewalk.data logs and warns of
out  its sentences
"""

from __future__ import annotations

import logging
import warnings
from typing import Any


class Remarks(logging.Handler):
    """What is logged and warned of while texts are read: kept beside their tokens, so that a run that finds these is told it too."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.sentences: list[str] = []
        self._logger, self._show = logging.getLogger(__package__), warnings.showwarning

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())

    def _warned(self, message: Any, *where: Any, **more: Any) -> None:
        self.sentences.append(str(message))
        self._show(message, *where, **more)

    def __enter__(self) -> Remarks:
        self._logger.addHandler(self)
        warnings.showwarning = self._warned
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        warnings.showwarning = self._show
