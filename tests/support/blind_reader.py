"""A program: kad as it is, but that its reader lets a rule's protocol through that no message has room for.

python -P tests/support/blind_reader.py kad's arguments ...
"""

from __future__ import annotations

import sys

import kad.cli
from kad.config import routing


def main() -> int:
    routing._LARGEST_IP_PROTOCOL = 1 << 20
    status: int = kad.cli.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
