"""Networks and their loading. Nothing here knows a job or a default path."""
