"""The run file: an SQLite database with a checksum for every row, its leases, and how run files are joined."""
