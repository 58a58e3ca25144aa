"""The package of the miniature."""
