"""The pages, a module each. All of them are loaded with the first request."""
