"""``python -m fused_mixup.sweep module.py``: train a model of your own over a grid of α and seeds.

It says which α helps accuracy and calibration on your data, with the spread over seeds.
"""
