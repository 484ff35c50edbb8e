"""lcinit: the /sbin/init of a container."""

__version__ = "0.1.0"
