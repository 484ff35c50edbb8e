"""Tests: guests."""
