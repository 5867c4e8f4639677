"""Samples made of parts of others: rectangles (``rectangles.py``) and patches (``patches.py``)."""
