"""The pages of docs/reference, one module a kind of page; each gives lines of Markdown and reads only the code."""
