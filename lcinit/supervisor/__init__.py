"""Signals, the one reaper, spawning: what PID 1 does while it has children."""
