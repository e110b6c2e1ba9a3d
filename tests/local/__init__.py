"""Tests of deciding in the proxy."""
