"""Events: CloudEvents published to topics, and delivered to every subscribing agent type."""
