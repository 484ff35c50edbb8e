"""Argument parsing and wiring; nothing imports it."""
