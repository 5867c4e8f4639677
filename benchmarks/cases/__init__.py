"""Cases by family of ops: registry.py collects what each module's ``cases(device)`` yields."""
