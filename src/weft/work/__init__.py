"""What agents and sidecars do of their own accord, as members of the mesh: tasks and events."""
