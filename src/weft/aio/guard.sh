# What weft.aio.guard starts: `sh guard.sh TENTHS`. Reads one order per line until its supervisor is gone:
#   +g PGID  -g PGID   a process group is, is no longer the supervisor's
#   +d PATH            a directory is the supervisor's
# Then ends the groups (SIGKILL so many tenths of a second after SIGTERM) and removes the directories.

trap '' INT TERM HUP
cd /
echo ready
exec >/dev/null
newline='
'
IFS=$newline
set -f
groups=
directories=
without() {
  kept=
  for item in $1; do
    [ "$item" = "$2" ] || kept="$kept$item$newline"
  done
}
any_alive() {
  for group in $groups; do
    kill -s 0 -- "-$group" && return 0
  done
  return 1
}
while read -r line; do
  value=${line#???}
  case $line in
    '+g '*) groups="$groups$value$newline" ;;
    '-g '*) without "$groups" "$value"; groups=$kept ;;
    '+d '*) directories="$directories$value$newline" ;;
  esac
done
for group in $groups; do
  kill -s TERM -- "-$group"
  kill -s CONT -- "-$group"
done
# `kill -s 0` is also true of a zombie that nobody reaps: the loop is bounded all the same.
tenths=$1
while [ "$tenths" -gt 0 ] && any_alive; do
  sleep 0.1
  tenths=$((tenths - 1))
done
for group in $groups; do
  kill -s KILL -- "-$group"
done
for directory in $directories; do
  rm -rf -- "$directory"
done
