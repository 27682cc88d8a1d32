"""The hot path: one request in, one model's answer out. See README.md in this folder."""
