"""The page of a run of `generate` that nobody has judged yet: its images, what they cost, what failed."""
