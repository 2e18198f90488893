"""The engine, which runs one chunk of images through all layers and variants of a network."""
