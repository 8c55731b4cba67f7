"""Declare every metric once, count cheaply in shared pages, and expose the sums as Prometheus text."""
