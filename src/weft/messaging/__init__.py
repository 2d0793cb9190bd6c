"""Topics and queues: what protects their messages."""
