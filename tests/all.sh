#!/usr/bin/env bash
# Every check, the quick ones first, each a target of the Makefile. Stops at the first failure; ends with the time of each and the tests' sum.
# CHECKS="unit crds" tests/all.sh runs a choice.
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra checks <<< "${CHECKS:-fmt-check lint unit files programs collector verify-generated deny crds e2e}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
times=()

finish() {
  printf '\n%-20s %8s\n' CHECK SECONDS
  printf '%-20s %8s\n' "${times[@]}" total "$SECONDS"
  # cargo's and unittest's closing lines, added up
  awk '/^test result: / {passed += $4; failed += $6} /^Ran [0-9]+ tests? in / {passed += $2} END {if (passed + failed) printf "%d passed, %d failed\n", passed, failed}' "$log"
}

for check in "${checks[@]}"; do
  started=$SECONDS
  printf '\n==> make %s\n' "$check"
  if ! make --no-print-directory "$check" 2>&1 | tee -a "$log"; then
    times+=("$check (failed)" $((SECONDS - started)))
    finish
    exit 1
  fi
  times+=("$check" $((SECONDS - started)))
done
finish
