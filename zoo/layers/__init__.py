"""Layers that two methods use identically."""
