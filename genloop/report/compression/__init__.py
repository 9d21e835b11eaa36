"""The page, tables and figures of what judges cost and what smaller ones keep."""
