"""The page about what fails in one run."""
