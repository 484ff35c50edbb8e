"""Commands that live without PID 1: overlay, mount-idmapped, tolerant, image, demo."""
