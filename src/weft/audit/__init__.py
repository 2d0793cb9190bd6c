"""The audit: who did, or was refused, what."""
