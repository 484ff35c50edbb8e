"""The lab: guests, boot roots and container managers for tests. Nothing here is shipped."""
