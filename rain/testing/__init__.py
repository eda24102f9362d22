"""The test kit: a deterministic event loop, a simulated network and cluster, a reference model, leak checks."""
