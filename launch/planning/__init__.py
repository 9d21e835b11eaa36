"""What a job or a pipeline will take: units, workers, memory, disk and time, before anything is spent."""
