"""Who starts workers on machines."""
