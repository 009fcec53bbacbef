"""``fill.py BYTES SECONDS``: take so much at once, hold it for so long."""

import sys
import time

memory = bytearray(int(sys.argv[1]))
memory[::4096] = b"x" * len(memory[::4096])
time.sleep(float(sys.argv[2]))
