"""Data sets × methods × shots × seeds → one tidy table; for comparing methods, never for a decision."""
