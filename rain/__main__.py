"""`python -m rain` is the command `rain`."""

import sys

from rain.cli.main import main

sys.exit(main())
