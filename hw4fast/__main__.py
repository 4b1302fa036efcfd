"""`python -m hw4fast`."""

import sys

from hw4fast.cli import main

sys.exit(main())
