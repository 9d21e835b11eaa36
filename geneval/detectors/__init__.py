"""Who finds objects."""
