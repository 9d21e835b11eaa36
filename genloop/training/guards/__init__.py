"""What looks over a training: images of fixed prompts, monitors, alarms, and the way back to the best checkpoint."""
