"""One module, one job: Config + main(config, world, checked)."""
