"""Reports for people: pages, plots and pictures."""
