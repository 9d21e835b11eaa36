"""Statistics: intervals, paired tests, rates, comparisons, agreement."""
