"""A package of its own, because others install a top-level `tests` too, which would be found first."""
