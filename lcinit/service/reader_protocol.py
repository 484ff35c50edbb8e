"""What PID 1 and the readers of service files say to each other: a request is one byte, and takes with it a handle of
the guest's root and the pipe for the answer. The answer is marshal's: "services" or "error", and a value.
"""

from __future__ import annotations

import struct

# Read what the configuration said when it was read first, and be gone or stay afterwards; read all anew; reboot(2).
FIRST, FIRST_AND_STAY, AGAIN, REBOOT = b"f", b"s", b"a", b"r"
MOST_ANSWER = 32 << 20  # bytes
NUMBER = struct.Struct("=I")  # after REBOOT the command, as an answer to it an errno
PATIENCE = 20  # seconds after which a reader is ended (SIGALRM): the guest can hold up who reads its files
