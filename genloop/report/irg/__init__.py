"""What the refinement corpus says about itself: counts and rates, with their intervals."""
