"""What is kept of conversations: messages, state, artifacts."""
