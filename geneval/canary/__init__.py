"""The canary: known pictures are shown before any image is judged."""
