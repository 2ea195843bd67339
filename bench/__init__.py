"""Benchmarks: what genret costs, beside what others cost, in one process and one run. See docs/performance.md."""
