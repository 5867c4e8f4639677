"""One module for each family of ops; registry.py collects what their ``cases(device)`` yield."""
