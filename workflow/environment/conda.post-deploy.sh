#!/usr/bin/env bash
# Run by Snakemake in the new conda environment, from the top of the checkout: the same pinned packages as `make env`.
set -euo pipefail
python -m pip install --require-hashes -r requirements.lock
workflow/environment/install_extras.sh python
