"""Random numbers of a seed, for what can only draw from the global generators: dropout, first weights."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's, NumPy's and Python's global generators as `seed` says; they are then as before.

    Nothing in fss draws from them outside of this. What is made lazily, or only sometimes, can then shift no
    numbers of what comes after it, and a caller's own random numbers are left alone.

    Args:
        seed: any whole number from 0 on; NumPy takes its last 32 bits.
    """
    # A GPU that nothing has used yet has no numbers that could be shifted, and would be started by a look.
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(gpus):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
