"""`python -m rain.subworker`."""

import sys

from rain.executor.executor import main

if __name__ == "__main__":
    sys.exit(main())
