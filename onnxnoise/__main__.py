"""Runs the command line as `python -m onnxnoise`."""

from onnxnoise.cli import main

if __name__ == "__main__":
    main()
