"""``python -m kad``."""

import sys

from kad.cli import main

if __name__ == "__main__":
    sys.exit(main())
