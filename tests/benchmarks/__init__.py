"""`make bench`: measures what docs/benchmarks.md claims, and prints the table with this machine's name."""
