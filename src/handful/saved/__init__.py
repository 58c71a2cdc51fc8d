"""Everything about the `.handful` file."""
