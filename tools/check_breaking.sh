#!/usr/bin/env bash
# Compare proto/ with the last commit on main, wherever that is to be found: a clone of main, a branch, a detached or shallow checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=${BUF:-.venv/bin/buf}

base=""
for ref in refs/remotes/origin/main refs/heads/main HEAD; do
    if base=$(git rev-parse --quiet --verify "$ref^{commit}" 2>/dev/null); then break; fi
done
if [[ -z $base ]]; then
    echo "buf breaking: no commit to compare with"
    exit 0
fi
if [[ -z $(git ls-tree -r --name-only "$base" -- proto | grep '\.proto$' || true) ]]; then
    echo "buf breaking: no proto in $base to compare with"
    exit 0
fi

# An archive instead of buf's own '.git#ref=': buf clones, and a clone of a shallow or detached checkout fails.
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" proto buf.yaml 2>/dev/null | tar -x -C "$before" || git archive "$base" proto | tar -x -C "$before"
[[ -f $before/buf.yaml ]] || cp buf.yaml "$before/"
"$buf" breaking --against "$before"
