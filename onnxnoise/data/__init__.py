"""Everything about images: cards that say how a model wants them, data sets, and streams of pixels and labels."""
