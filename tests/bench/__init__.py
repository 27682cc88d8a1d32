"""The benchmarks' own tools."""
