"""An evaluator against people."""
