"""The kernel: constants, structures and one function a call. Standard library only; raises only OSError."""
