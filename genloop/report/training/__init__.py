"""The page of a training: what it drew over its steps, its curves, its alarms."""
