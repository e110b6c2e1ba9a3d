"""Questions to the journal: a columnar copy of its records, and DuckDB over it in a process of its own.

Law: the copy is derived from the journal and made anew when it is gone; it answers fast, and it proves nothing. What
asks may read the copy and nothing else, may write nothing, and has a bound on memory and time.
"""
