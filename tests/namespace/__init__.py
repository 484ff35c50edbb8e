"""Tests: namespace."""
