"""Probatum: nothing advances on a mock, a guess, or too little data."""

__version__ = "0.1.0"
