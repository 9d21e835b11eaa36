"""The subcommands of `genloop`."""
