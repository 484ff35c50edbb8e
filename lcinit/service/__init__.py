"""Services: what lcinit supervises where it is the guest's own init."""
