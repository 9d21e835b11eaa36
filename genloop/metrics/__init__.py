"""Numbers about images: scores, distances between sets, features."""
