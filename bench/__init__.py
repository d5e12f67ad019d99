"""Side-by-side timings, each one module: `python -m bench.train`, `python -m bench.extend`, ..."""
