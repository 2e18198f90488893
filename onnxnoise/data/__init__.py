"""Everything about images: cards that say how a model takes them, data sets, and streams of pixels and labels."""
