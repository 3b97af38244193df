"""`python -m app`: the command line, without installing its script."""

import sys

from app.cli import main

if __name__ == "__main__":
    sys.exit(main())
