"""The page and tables of judged judges."""
