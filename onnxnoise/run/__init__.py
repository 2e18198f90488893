"""A measurement from start to end: what it needs, what is owed, who measures it, and where it is kept."""
