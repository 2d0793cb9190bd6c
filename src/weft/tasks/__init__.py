"""Durable tasks: submitted to queues, worked on at least once, their results recorded once."""
