"""Models ranked by their accuracy under noise, with ties."""
