"""The HTTP port of the server: dashboard, JSON answers, the event log, metrics. Everything over it is read-only."""
