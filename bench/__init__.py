"""Benchmarks: each measures the real thing, prints its table and writes bench/results/<name>.json.

Law: figures are ratios within one run wherever that is possible, because machines are shared and noisy; a bar is what
the project promises, and a row says whether it holds. No test asserts a time.
"""
