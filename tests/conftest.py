"""One CPU thread for every test and every process that a test starts: results are promised for a fixed number."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
