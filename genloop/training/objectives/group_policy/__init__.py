"""Group-relative policy optimisation of masked-token generators."""
