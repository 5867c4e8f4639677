"""Tables, pictures and pages from the files of runs: ``python -m benchmarks.report``."""
