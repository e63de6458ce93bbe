"""Freed memory stays with the process where a command asks for it: the next block costs no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from fss.runs.memory import keep_freed_memory
keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * 2**26
before = faults()
b"x" * 2**26
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_block_that_was_freed_is_taken_up_again():
    asked = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    assert int(asked) < 100  # of 16,384 pages
