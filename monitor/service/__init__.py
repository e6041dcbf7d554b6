"""The running daemon: construction, health endpoints, watchdog, maintenance and the preflight check."""
