#!/usr/bin/env bash
# Make a Chromium available for the browser tests: Debian's package where apt is, Playwright's own download elsewhere.
#   install_chromium.sh PYTHON
set -euo pipefail
python=${1:?usage: install_chromium.sh PYTHON}
command -v chromium >/dev/null && exit 0
if command -v apt-get >/dev/null; then
  root=""
  [ "$(id -u)" = 0 ] || root=$(command -v sudo || true)
  if [ "$(id -u)" = 0 ] || [ -n "$root" ]; then
    $root apt-get update -qq
    # The default fonts are needed for readable screenshots, the others for text in other scripts.
    if DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; then
      exit 0
    fi
  fi
fi
exec "$python" -m playwright install --with-deps chromium
