"""Benchmarks beside GenEval, one folder each: cases, what is measured on them, numbers with their intervals."""
