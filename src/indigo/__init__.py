"""Indigo: a self-hosted, multi-tenant, OpenAI-compatible AI platform."""
