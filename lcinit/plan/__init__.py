"""Configuration and what the machine allows, turned into steps that are data. Pure: no I/O, no clock."""
