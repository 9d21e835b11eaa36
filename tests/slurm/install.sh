#!/bin/sh
# Slurm from Debian's packages, for tests/slurm. Exit code 1, and one line that says why, where there is none to be had.
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null && here=yes || here=no
if [ "$(id -u)" != 0 ]; then
  echo "real Slurm left out: its daemons need root; recordings of it are part of make test" >&2
  exit 1
fi
if [ $here = no ] && ! command -v apt-get >/dev/null; then
  echo "real Slurm left out: it is not installed, and there is no apt-get; recordings of it are part of make test" >&2
  exit 1
fi
if [ $here = no ]; then
  echo "installing Slurm" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends slurmctld slurmd slurm-client; } >/dev/null 2>&1 || {
    echo "real Slurm left out: apt-get cannot install it; recordings of it are part of make test" >&2
    exit 1
  }
fi
