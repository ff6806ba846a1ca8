"""Both stages in one process, against a simulated log and store: a seed decides time and order."""
