"""Stand-ins for compiled operators that are not there, and readers of old file formats."""
