"""The GenEval benchmark, usable alone: prompts, verdict, colours, summary."""
