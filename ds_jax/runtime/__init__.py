"""What all other packages need: files, locks, errors, shutdown, processes, progress, versions."""
