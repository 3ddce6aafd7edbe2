"""A server that listens: speech comes in as sound, and goes out as emotions."""
