"""Providers, models and endpoints: the file, the registry, the health of each."""
