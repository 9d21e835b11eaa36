"""Training on conversations: the loss counts what the assistant says, in judges and in chat models alike."""
