"""What several tests share: networks, images, run files, processes, and the command line."""
