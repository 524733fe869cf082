#!/bin/sh
# mypy finds the package through a link of its name: the repository's root is the package `seatrial`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
link=$(mktemp -d)
trap 'rm -r "$link"' EXIT
ln -s "$root" "$link/seatrial"
cd "$link"
"${BIN:-$root/.venv/bin}/mypy" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p seatrial
