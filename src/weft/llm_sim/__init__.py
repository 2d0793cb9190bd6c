"""A simulated provider of models: OpenAI's API, honest about being simulated, limits and failures at will."""
