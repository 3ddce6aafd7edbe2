"""What every room needs: files, locks, how the program ends, processes, progress."""
