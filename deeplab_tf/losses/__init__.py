"""Losses, backend-agnostic."""
