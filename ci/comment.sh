#!/usr/bin/env bash
# Comments a verdict on a pull request. GitHub's actions (action.yml, ci/comment/action.yml) call this.
#
#   ci/comment.sh post NUMBER FILE      comments a Markdown file, or renews the earlier comment
#   ci/comment.sh after RUN             of a workflow run that measured a pull request, on its behalf
#
# `after` is for a workflow that has the rights which the measuring one must not have, since that runs
# the pull request's code. What that code left is hostile: of its archive the verdict alone is read, by
# `hotlap verdict`, within bounds, and written anew; the number of the pull request comes from GitHub.
#
# Environment: GH_TOKEN, GITHUB_REPOSITORY, NAME (of the artefact and the comment); for `after` also
# HEAD_SHA, HEAD_OWNER, HEAD_BRANCH of the run, as its event says them, and GITHUB_OUTPUT.
set -euo pipefail

# Bytes of an archive, and of a comment, which GitHub cuts off at 65,536 characters.
most_archive=10000000
most_comment=60000

fail() {
  echo "comment.sh: $1" >&2
  exit 2
}

# Comments a Markdown file on a pull request, once for each NAME.
post() {
  local number=$1 file=$2 issues earlier own body
  [[ $number =~ ^[0-9]+$ ]] || fail "$number is no number of a pull request"
  [ -s "$file" ] || fail "$file is empty"
  body=$(mktemp)
  marker="<!-- hotlap: $NAME -->"
  export marker
  { echo "$marker" && head -c "$most_comment" -- "$file"; } >"$body"
  issues="repos/$GITHUB_REPOSITORY/issues"
  own='.[] | select(.user.login == "github-actions[bot]" and (.body | startswith(env.marker))) | .id'
  earlier=$(gh api --paginate "$issues/$number/comments" --jq "$own" | sed -n 1p)
  if [ -n "$earlier" ]; then
    gh api --silent --method PATCH "$issues/comments/$earlier" --field "body=@$body"
  else
    gh api --silent "$issues/$number/comments" --field "body=@$body"
  fi
  rm -f -- "$body"
}

# Comments what a run measured on the pull request whose newest commit it was of.
after() {
  local run=$1 number artefact id size archive status=0
  [[ $run =~ ^[0-9]+$ ]] || fail "$run is no number of a workflow run"
  number=$(gh api --method GET "repos/$GITHUB_REPOSITORY/pulls" -f state=open -f "head=$HEAD_OWNER:$HEAD_BRANCH" \
    --jq '.[] | select(.head.sha == env.HEAD_SHA) | .number' | sed -n 1p)
  if [ -z "$number" ]; then
    echo "no open pull request has $HEAD_SHA as its newest commit: nothing to say"
    return
  fi
  artefact=$(gh api --method GET "repos/$GITHUB_REPOSITORY/actions/runs/$run/artifacts" -f "name=$NAME" \
    --jq '.artifacts[0] // empty | "\(.id) \(.size_in_bytes)"')
  mkdir -p hotlap-out
  rm -f hotlap-out/comment.md hotlap-out/gate.sarif
  read -r id size <<<"$artefact" || true
  if ! [[ ${id:-} =~ ^[0-9]+$ && ${size:-} =~ ^[0-9]+$ ]]; then
    nothing "The run left no results; its log says why."
  elif [ "$size" -gt "$most_archive" ]; then
    nothing "The run left $size bytes, which are not looked at: $most_archive are the most."
  else
    archive=$(mktemp)
    # What is cut off here, or did not arrive, is no archive that can be read.
    { gh api "repos/$GITHUB_REPOSITORY/actions/artifacts/$id/zip" || true; } | head -c "$most_archive" >"$archive"
    hotlap verdict --markdown hotlap-out/comment.md --sarif hotlap-out/gate.sarif -- "$archive" >/dev/null ||
      status=$?
    rm -f -- "$archive"
    case $status in
    0 | 1 | 3 | 4) [ -s hotlap-out/comment.md ] || nothing "The run left no verdict that can be read." ;;
    *) fail "hotlap verdict ended with $status" ;;
    esac
  fi
  post "$number" hotlap-out/comment.md
  echo "number=$number" >>"$GITHUB_OUTPUT"
}

# Leaves a comment without a verdict.
nothing() {
  printf '### hotlap: no verdict\n\n%s\n' "$1" >hotlap-out/comment.md
}

case ${1:-} in
post) [ $# = 3 ] || fail "post needs a number and a file" ;;
after) [ $# = 2 ] || fail "after needs the number of a workflow run" ;;
*) fail "expected post or after; see the head of this file" ;;
esac
"$@"
