"""Print the hash of each file named: a process that shares the cache of hashes with others."""

import sys
from pathlib import Path

from genloop.hashing import sha256_tree

if __name__ == "__main__":
    for word in sys.argv[1:]:
        print(sha256_tree(Path(word)))
