"""The native engine, typed Any: the package has neither types nor names that a checker could see."""

from __future__ import annotations

import importlib
from typing import Any

native: Any = importlib.import_module("xllamacpp")
