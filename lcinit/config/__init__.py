"""What users write, turned into frozen, typed values; every problem found, with its place."""
