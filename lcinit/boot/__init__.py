"""Runs the plan: probing, the runner, the leader and its helper, the handoff."""
