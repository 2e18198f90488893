"""The commands, a file each: flags become a spec, the library is called once, the result goes to console and files."""
