"""An OpenAI-compatible upstream that makes its answers up and fails on demand, for development and load."""

from indigo.engines.mock.faults import FAULTS
from indigo.engines.mock.server import Mock, Options, Received, run, serve

FAULT_MODELS = tuple(f"mock-fault-{name}" for name in FAULTS)

__all__ = ["FAULTS", "FAULT_MODELS", "Mock", "Options", "Received", "run", "serve"]
