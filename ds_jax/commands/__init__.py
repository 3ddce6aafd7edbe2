"""One file for each `--mode`, called as the mode; that of serve is `serving.command`."""
