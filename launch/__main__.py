"""`python -m launch`: the `genloop` command without the console script."""

from launch.cli import main

main()
