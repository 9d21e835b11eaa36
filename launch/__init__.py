"""How processes start and are watched; the `genloop` command. Never imports torch."""
