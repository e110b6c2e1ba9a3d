"""One module a section of the console: from a request's address to what its template shows.

Law: thin. What is asked blocks, so it is asked in a thread; what fails is said on the page, in the words of its error.
"""
