"""Scripts behind the figures of docs/benchmarks.md."""
