"""Who names the colours of objects."""
