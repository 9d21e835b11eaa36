"""Smaller forms of models that see and speak: fewer layers, smaller images, fewer query tokens, weights in few bits."""
