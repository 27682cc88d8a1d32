"""The outside world: one folder per need, one file per engine."""
