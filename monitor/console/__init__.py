"""The console: pages and an API for operators, in a process of its own.

Input: the database. Output: HTTP answers. Invariant: it reads through `store.reader` and writes through `control`
alone, so it does what the command line does.
"""
