"""The embedded world: scenes, renderer, exact detector, tokenizer. Implements the same protocols as the real parts."""
