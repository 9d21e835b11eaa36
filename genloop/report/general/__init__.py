"""The page of any run: pictures, figures and tables that it wrote, what failed, how it was run."""
