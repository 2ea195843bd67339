"""Benchmarks of genret and others, in one process and one run. See docs/performance.md."""

import genret  # noqa: F401  (before torch: it sets how torch's threads wait, as it does for whoever uses genret)
