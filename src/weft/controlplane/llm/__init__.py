"""Scheduling of calls to models: who may start now, and where."""
