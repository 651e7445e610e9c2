#!/usr/bin/env bash
# Builds the operator's programs and packs them as the image clustertracing:dev: operator-image.sh OUT.tar
# The same layout as the Dockerfile's: static programs, nothing else, user 65532. Cargo's profile `testbed` is release without
# the optimizations that only cost time here; TESTBED_PROFILE=release builds what is shipped.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
out=$(realpath "$1")
profile=${TESTBED_PROFILE:-testbed}
cd "$HERE/../.."
target=$(rustc -vV | sed -n 's/^host: //p')
echo "testbed: building the operator's programs (profile $profile; 3 min the first time)" >&2
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --quiet --profile "$profile" --target "$target" \
  --bin clustertracing-controller --bin clustertracing-agent
built=${CARGO_TARGET_DIR:-target}/$target/$profile
"$HERE/image.py" --user 65532:65532 "$out" clustertracing:dev "" \
  "$built/clustertracing-controller:/clustertracing-controller" "$built/clustertracing-agent:/clustertracing-agent"
echo "testbed: $out: $(du -h "$out" | cut -f1), built in $SECONDS s" >&2
