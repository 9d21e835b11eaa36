"""Run folders of generate and evaluate as data: typed rows and their one reader."""
