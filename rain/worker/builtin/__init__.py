"""The tasks a worker runs itself, one module per kind."""
