"""What is trained: one module or folder an objective."""
