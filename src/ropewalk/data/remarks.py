"""What is said of texts while they are read, to be said again where their tokens are kept.

in   what ropewalk.data logs and warns of
out  its sentences
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
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

    @staticmethod
    @contextlib.contextmanager
    def unsaid() -> Iterator[None]:
        """Neither shown nor kept: of texts that are looked through before they are read."""
        logger = logging.getLogger(__package__)
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                yield
        finally:
            logger.setLevel(level)
