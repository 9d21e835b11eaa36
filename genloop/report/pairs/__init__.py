"""What a set of preference pairs is: counts, win rates, margins."""
