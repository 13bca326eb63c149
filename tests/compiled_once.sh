#!/bin/sh
# Stands for g++ in tests: what was compiled from the same text with the same options is copied.
#
# Inductor asks of each new cache folder which vector instructions the compiler and the CPU have, which
# takes longer than to compile a small model. COMPILED_ONCE: folder of what was compiled; BEHIND: the path
# without this.
PATH=$BEHIND
export PATH
source='' output='' options='' expected=''
for argument in "$@"; do
  if [ "$expected" ]; then
    output=$argument expected=''
    continue
  fi
  case $argument in
  -o) expected=1 ;;
  *.cpp) source="$source $argument" ;;
  *) options="$options $argument" ;;
  esac
done
source=${source# }
case $output in
*.so) [ -f "$source" ] || exec g++ "$@" ;;
*) exec g++ "$@" ;;
esac
key=$({ echo "$options" && cat "$source"; } | sha256sum | cut -d ' ' -f 1)
[ "$key" ] || exec g++ "$@"
if ! cp "$COMPILED_ONCE/$key" "$output" 2>/dev/null; then
  g++ "$@" || exit
  cp "$output" "$COMPILED_ONCE/$key.$$" && mv "$COMPILED_ONCE/$key.$$" "$COMPILED_ONCE/$key"
fi
