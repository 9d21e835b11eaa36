"""One CPU thread for every test and every process that a test starts: results are promised for a fixed number."""

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="genloop-tests-")  # hashes of inputs are kept there
