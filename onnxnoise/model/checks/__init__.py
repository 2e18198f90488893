"""Files that can't be measured honestly are refused: with the node, the reason and what to do."""
