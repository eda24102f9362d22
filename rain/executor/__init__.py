"""The Python executor: the child process of a worker in which user code runs."""
