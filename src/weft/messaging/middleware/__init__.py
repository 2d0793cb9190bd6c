"""What can be put around the processing of a message."""
