"""The state of runs: status, progress, logs."""
