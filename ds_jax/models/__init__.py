"""The networks, in Flax: no files but those of weights, and no devices."""
