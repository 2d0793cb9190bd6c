"""Topics and queues: the contract of brokers, the brokers, and what protects messages."""
