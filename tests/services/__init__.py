"""Services that are real: the catalogue, and a whole guest made of them."""
