#!/usr/bin/env bash
# Compare proto/ with the last commit on main, wherever that is to be found: a clone of main, a branch, a detached or shallow checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=${BUF:-.venv/bin/buf}

has_proto() { [[ -n $(git ls-tree -r --name-only "$1" -- proto 2>/dev/null | grep '\.proto$' || true) ]]; }

base=""
for ref in refs/remotes/origin/main refs/heads/main HEAD; do
    if has_proto "$ref"; then
        base=$ref
        break
    fi
done
if [[ -z $base ]]; then
    echo "buf breaking: no commit with a proto to compare with"
    exit 0
fi

# An archive instead of buf's own '.git#ref=': buf clones, and a clone of a shallow or detached checkout fails.
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" proto buf.yaml 2>/dev/null | tar -x -C "$before" || git archive "$base" proto | tar -x -C "$before"
[[ -f $before/buf.yaml ]] || cp buf.yaml "$before/"
"$buf" breaking --against "$before"
