"""The gateway: the door for callers outside the mesh."""
