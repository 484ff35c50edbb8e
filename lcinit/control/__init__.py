"""What outsiders say to PID 1: protocols, apart from their transport."""
