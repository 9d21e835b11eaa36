"""The counting job as a module that can be imported only: it does not run itself as a script."""

from tests.worlds.counting_job import KIND, Config, check, main

__all__ = ["KIND", "Config", "check", "main"]
