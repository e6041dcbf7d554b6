"""The daemon: construction, health pages, heartbeat, watchdog, maintenance, shutdown, and the preflight check.

Input: a configuration. Output: a process that runs until a signal. Invariant: `daemon.py` is the only module of the
project that builds the running objects and connects them.
"""
