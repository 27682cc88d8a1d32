"""Benchmarks: Indigo beside nginx (the limit) and LiteLLM (a peer), in one run, interleaved. `python -m bench`."""
