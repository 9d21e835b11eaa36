"""InstructBLIP (Dai et al. 2023): a ViT, a Q-Former that reads the question too, and Vicuna or Flan-T5."""
