#!/usr/bin/env bash
# A browser for tests/reports/test_page.py. Without one those tests are skipped and say so; nothing else needs it, so this never fails.
set -u
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "no Chromium here and no way to install it; the page's browser tests will be skipped" >&2
    exit 0
fi
echo "installing Chromium for the page's browser tests"
log=$(mktemp)
if ! { timeout 300 "${as_root[@]}" apt-get update && timeout 600 "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends chromium; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "Chromium could not be installed; the page's browser tests will be skipped" >&2
fi
rm -f "$log"
