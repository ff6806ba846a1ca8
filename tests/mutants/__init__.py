"""Bugs that someone could write, each as a patch, and the tests that notice: `make mutants`."""
