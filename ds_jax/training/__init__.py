"""How networks are trained: the loop, the step, devices and checkpoints."""
