"""The result cache: results of tasks by what they were computed from, shared by sessions, users and clusters."""
