"""Benchmarks of genret and others, in one process and one run. See docs/performance.md."""
