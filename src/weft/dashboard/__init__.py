"""The pages of the control plane: what the API tells, to look at."""
