"""Tests of where declared things come from."""
