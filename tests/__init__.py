"""Tests of lcinit. A package so that `tests.lab` can be imported from every test."""
