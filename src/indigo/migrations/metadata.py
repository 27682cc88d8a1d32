"""Every table there is: those of each feature's `tables` module, and those of the backends."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

from sqlalchemy import MetaData

from indigo import features
from indigo.backends.sql import changes


def all_tables() -> MetaData:
    """The metadata with every feature's tables in it. Found by name, so that none can be forgotten."""
    for feature in pkgutil.iter_modules(features.__path__, prefix="indigo.features."):
        name = f"{feature.name}.tables"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    return changes.ChangeCounter.metadata
