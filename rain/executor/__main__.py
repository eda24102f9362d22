"""`python -m rain.executor`."""

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # until the executor tells it to leave alone what is imported now

from rain.executor.executor import main

if __name__ == "__main__":
    sys.exit(main())
