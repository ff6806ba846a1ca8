"""Schedules of faults against real processes: `make faults`."""
