"""Alias of `rain.executor`, under the name of Rain 0.1."""

import sys

from rain.executor import context, executor

sys.modules[__name__ + ".context"] = context
sys.modules[__name__ + ".executor"] = executor
sys.modules[__name__ + ".subworker"] = executor
