"""Inspect: compliance tasks built from `tasks/compliance/*.yaml`, the scorer, and compliance scores."""
