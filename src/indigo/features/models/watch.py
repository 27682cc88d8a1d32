"""Follows the providers file while the server runs: its content each second, whoever replaced it and however.

A file that has become bad or unreadable changes nothing but `error`; the last good catalogue stays in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from indigo.features.models import providers_file
from indigo.features.models.catalog import Catalog
from indigo.kernel.errors import InvalidRequest

log = logging.getLogger("indigo.models")


class FollowedFile:
    """See the module. `parse` makes the catalogue of the file's text."""

    def __init__(self, path: Path, parse: Callable[[str], Catalog]) -> None:
        self.path = path
        self.error = ""
        self._parse = parse
        self._good: str | None = None
        self._bad: str | None = None

    def load(self) -> Catalog:
        """The catalogue at start. Raises ProvidersFileError."""
        text = providers_file.read(self.path)
        catalog = self._parse(text)
        self._good = text
        return catalog

    async def news(self) -> Catalog | None:
        """The new catalogue, if the file has changed and is good."""
        try:
            # A thread, because a network file system may take its time.
            text = await asyncio.to_thread(providers_file.read, self.path)
        except InvalidRequest as error:
            return self._refuse(error.message)
        if text == self._good:
            self.error, self._bad = "", None
            return None
        if text == self._bad:
            return None
        try:
            catalog = self._parse(text)
        except InvalidRequest as error:
            self._bad = text
            return self._refuse(error.message)
        self._good, self._bad, self.error = text, None, ""
        log.info("the providers file %s has changed", self.path)
        return catalog

    def _refuse(self, message: str) -> None:
        if message != self.error:
            log.error("the providers file is not taken over, the last good one stays: %s", message)
        self.error = message
