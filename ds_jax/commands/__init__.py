"""One file for each `--mode`, called as the mode."""
