"""Tests: managers."""
