"""Variants of mixing by their papers' names: their settings, and plans drawn from them."""
