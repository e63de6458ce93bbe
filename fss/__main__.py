"""`python -m fss`, which torchrun starts."""

import sys

from fss.cli import main

sys.exit(main())
