"""The page of images beside those of a reference."""
