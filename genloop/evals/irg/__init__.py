"""The benchmark of critics on held-out traces of the refinement corpus, and of guided generation at equal compute."""
