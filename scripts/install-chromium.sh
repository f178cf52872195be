#!/usr/bin/env bash
# Makes sure there is a Chromium for the browser tests; installs it by apt-get where there is none.
# CHROMIUM names a browser that is not at the usual place.
set -euo pipefail

if [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "No Chromium found. Install one by your system's package manager and set CHROMIUM to its path." >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
# The fonts make screenshots readable; nothing else that is merely recommended is needed.
"${as_root[@]}" apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core
