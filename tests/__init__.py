"""The tests mirror the code: tests/<room>/test_<file>.py; tests/e2e starts the real thing."""
