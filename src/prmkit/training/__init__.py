"""How labels become weights."""
