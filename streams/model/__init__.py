"""The purchase model at work: its parameters estimated from a log, and its forecasts held against what came.

The formulas are in `segmentation.purchase_model`; NumPy and SciPy, which only this package may import, come with the
extra `model`.
"""
