#!/usr/bin/env bash
# hotlap in any CI system; GitHub's action (action.yml) calls this too.
#
#   ci/hotlap.sh compare BASE HEAD WORKLOAD...   races the two revisions; exits as hotlap ab
#   ci/hotlap.sh record WORKLOAD...              measures this commit, stores the results on a branch of
#                                                their own, and looks at all of them; exits as hotlap
#                                                history, but 0 while the series are too short to tell
#
# The repository needs its history (no shallow clone), and hotlap must be installed. What is written, and
# where, can be set:
#   HOTLAP_OUT      folder for verdict.json, comment.md, gate.sarif, gate.xml, run/ and history.html
#                   (default hotlap-out)
#   HOTLAP_OPTIONS  more options of hotlap ab or hotlap run, such as
#                   "--backends eager,onnxruntime --budget 5m"
#   HOTLAP_BRANCH   where results are stored (default hotlap-history)
#   HOTLAP_REMOTE   where that branch is pushed (default origin)
set -euo pipefail
trap '' PIPE # whoever reads our words may go: that must not end this, nor a word that cannot be said

out=${HOTLAP_OUT:-hotlap-out}
case $out in -*) out=./$out ;; esac
branch=${HOTLAP_BRANCH:-hotlap-history}
remote=${HOTLAP_REMOTE:-origin}
# A path is meant from here, and git would read it from the worktree that it works in.
place=$(git remote get-url -- "$remote" 2>/dev/null) || place=$remote
case $place in
/* | -*) ;;
*) [ ! -d "$place" ] || remote=$(cd -- "$place" && pwd) ;;
esac
read -r -d '' -a options <<<"${HOTLAP_OPTIONS:-}" || true # several lines are one list

say() {
  echo "hotlap.sh: $1" >&2 || true # without stderr, set -e would end with 1, and 1 is a regression
}

fail() {
  say "$1"
  exit 2
}

# Removes these files of an earlier run: a reader would take them for this one's.
empty() {
  mkdir -p -- "$out" || fail "cannot make $out"
  rm -rf -- "${@/#/$out/}" || fail "cannot empty $out"
}

# Fails where hotlap ended as with a verdict and left no such file: a help text ends with 0, an
# installation that is broken with 1.
judged() {
  case $1 in
  0 | 1 | 3) [ -s "$out/$2" ] || fail "hotlap ended with $1 and left no $2; see its words above" ;;
  esac
}

# Prints the hash of the commit that a name stands for: a branch may be called --output=FILE.
commit() {
  git rev-parse --verify --quiet --end-of-options "$1^{commit}" || fail "$1 is no commit here"
}

# Runs a git command whose failure must not look like a verdict: git ends with 1 as well, and 1 is a
# regression.
repo() {
  git -c user.name=hotlap -c user.email=hotlap@localhost "$@" || fail "git $* failed"
}

# Races HEAD against the commit where it left BASE.
compare() {
  local base head status=0
  empty verdict.json base.json head.json comment.md gate.sarif gate.xml
  printf '### hotlap ab: no verdict\n\nThe comparison ended before it could tell; its log says why.\n' \
    >"$out/comment.md" || fail "cannot write to $out"
  [ $# -ge 3 ] || fail "compare needs BASE, HEAD and a workload"
  [ "$(git rev-parse --is-shallow-repository)" = false ] ||
    fail "this clone is shallow, so where the branches parted is not known: fetch the whole history (actions/checkout: fetch-depth: 0)"
  base=$(commit "$1") || exit 2
  head=$(commit "$2") || exit 2
  base=$(git merge-base "$base" "$head") || fail "$1 and $2 have no common ancestor here"
  shift 2
  hotlap ab ${options[@]+"${options[@]}"} --out "$out" --markdown "$out/comment.md" \
    --sarif "$out/gate.sarif" --junit "$out/gate.xml" ${GITHUB_ACTIONS:+--github} -- "$base" "$head" "$@" ||
    status=$?
  judged "$status" verdict.json
  return "$status"
}

# Measures, stores the results, and looks at the series that they make with all earlier ones.
record() {
  local name start status=0 seen=0
  empty run history.html history.json history.md
  [ $# -ge 1 ] || fail "record needs a workload"
  git check-ref-format "refs/heads/$branch" || fail "$branch cannot be the name of a branch"
  hotlap run ${options[@]+"${options[@]}"} --out "$out/run" -- "$@" || status=$?
  judged "$status" run/results.json
  [ "$status" = 0 ] || [ "$status" = 4 ] || exit "$status"
  [ -s "$out/run/results.json" ] || exit "$status"
  name=$(date -u +%Y%m%d-%H%M%S)-$(git rev-parse --short=12 HEAD)-$RANDOM$RANDOM.json
  tree=$(mktemp -d) || fail "no room for a worktree"
  trap 'git worktree remove --force -- "$tree/stored" 2>/dev/null || true; rm -rf -- "$tree"' EXIT
  start=$(stored) || exit 2
  repo worktree add --quiet --detach -- "$tree/stored" "$start"
  mkdir -p "$tree/stored/results" || fail "cannot write to $tree"
  cp "$out/run/results.json" "$tree/stored/results/$name" || fail "cannot write to $tree"
  repo -C "$tree/stored" add results
  repo -C "$tree/stored" commit --no-verify --quiet -m "Results of $(git rev-parse --short=12 HEAD)"
  publish "$tree/stored"
  look "$tree" || seen=$?
  if [ "$status" != 0 ]; then
    say "a workload was not measured at all; see $out/run/results.json"
    return "$status"
  fi
  return "$seen"
}

# Prints the newest commit of the branch of results, or of an empty first one.
stored() {
  local status=0
  git ls-remote --quiet --exit-code -- "$remote" "refs/heads/$branch" >/dev/null || status=$?
  case $status in
  0)
    repo fetch --quiet -- "$remote" "refs/heads/$branch"
    repo rev-parse FETCH_HEAD
    ;;
  2) repo commit-tree "$(git mktree </dev/null)" -m "Results that hotlap measured, one file a commit" ;;
  *) fail "cannot reach $remote" ;;
  esac
}

# Pushes the worktree's commit. Another job may have stored its results meanwhile: file names differ, so
# that its commit and ours fit one after the other.
publish() {
  local try
  for try in 1 2 3 4 5; do
    if git -C "$1" push --quiet -- "$remote" "HEAD:refs/heads/$branch"; then
      return
    fi
    say "another job was faster, trying again ($try)"
    repo -C "$1" fetch --quiet -- "$remote" "refs/heads/$branch"
    repo -C "$1" rebase --quiet FETCH_HEAD
  done
  fail "cannot push to $branch of $remote; the results are in $out/run"
}

# Looks for changes in all stored results, and ends as hotlap history.
look() {
  local status=0
  hotlap history "$1/stored/results" --index "$1/history.sqlite" --html "$out/history.html" \
    --json "$out/history.json" --markdown "$out/history.md" || status=$?
  judged "$status" history.json
  if [ "$status" = 3 ] && grep -q '^ "findings": \[\]' "$out/history.json"; then
    say "the series are too short to tell; see $out/history.html"
    status=0
  fi
  return "$status"
}

case ${1:-} in
compare | record) "$@" ;;
*) fail "expected compare or record; see the head of this file" ;;
esac
