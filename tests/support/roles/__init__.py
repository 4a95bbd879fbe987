"""Small stand-ins for the children of the supervisor, to try the supervisor by itself."""
