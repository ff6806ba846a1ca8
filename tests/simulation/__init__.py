"""Both stages in one process, against a simulated log and store, on an event loop whose time and order a seed decides."""
