"""Tests of what operators declare."""
