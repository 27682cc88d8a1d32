"""Indigo: a self-hosted, multi-tenant, OpenAI-compatible AI platform."""

from importlib.metadata import version

VERSION = version("indigo-server")
