"""Benchmarks: the same workloads on Rain and its rivals, side by side in one run, every result checked."""
