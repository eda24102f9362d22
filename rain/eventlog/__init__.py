"""The event log: what happened in a cluster, written by the server and read by everybody (spec 10.2)."""
