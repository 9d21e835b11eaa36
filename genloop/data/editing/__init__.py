"""Requests to edit pictures: what is wished, pictures, masks and control maps on their way to a model."""
