"""What the refinement corpus says about itself, and the page of the benchmark on it."""
