"""What the Makefile calls: demo, benches, the form of the bundle JSON."""
