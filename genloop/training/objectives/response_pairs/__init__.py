"""Training on pairs of answers: a chat model learns which of two answers to a question about an image is better."""
