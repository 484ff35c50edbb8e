"""The guest that PID 1 stays for: started, watched, asked, entered, ended."""
