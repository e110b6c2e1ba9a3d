"""The policy author's tools: load, check, test.

Law: what an author is told names the file and the line, and what to do.
"""
