"""How a joint model learns: the loop, its losses and schedule, checkpoints, devices, validation."""
