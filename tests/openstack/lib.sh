# Settings and small functions that up.sh and down.sh share. To be sourced, not run.
#
# Settings (environment):
#   HAAR_OPENSTACK_DIR       everything it writes: databases, logs, credentials   /tmp/haar-openstack
#   HAAR_OPENSTACK_OFFSET    added to every port; another cloud takes another     10000
#   HAAR_OPENSTACK_PASSWORD  of the users demo and admin                          secret
#   HAAR_OPENSTACK_REGION    its region                                           RegionOne
#   HAAR_OPENSTACK_COMPUTE   Nova's fake driver; may change at every start        MediumFake
#   HAAR_OPENSTACK_PATIENCE  seconds that one wait may take                       240

: "${HAAR_OPENSTACK_DIR:=/tmp/haar-openstack}"
: "${HAAR_OPENSTACK_OFFSET:=10000}"
: "${HAAR_OPENSTACK_PASSWORD:=secret}"
: "${HAAR_OPENSTACK_REGION:=RegionOne}"
: "${HAAR_OPENSTACK_COMPUTE:=MediumFake}"
: "${HAAR_OPENSTACK_PATIENCE:=240}"

base=$HAAR_OPENSTACK_DIR
# Each service's process, log, marker of a finished step, and rendered configuration.
pids=$base/pid logs=$base/log steps=$base/step etc=$base/etc

give_up() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Whether the folder is free or was made here: whoever else made it could have put anything into it, and it
# gets wiped as a whole. The settings are the first file in it.
is_ours() {
  [[ ! -e $base && ! -L $base ]] || { [[ -d $base && ! -L $base && -O $base ]] && { [[ -f $base/settings ]] || is_empty; }; }
}

# But for the lock, which a start that broke off may have left.
is_empty() { [[ -z $(find "$base" -mindepth 1 -type f ! -name lock -print -quit) ]]; }

# A number is given to another process after its end; number and birth together are not.
birth() { awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null; }

# recorded NAME: the number of the process that was started under this name, if it is still that one.
recorded() {
  local pid born
  read -r pid born 2>/dev/null <"$pids/$1" || return 1
  [[ $born && $(birth "$pid") == "$born" ]] && printf '%s\n' "$pid"
}

# Those of a session that are not just waiting to be buried. ps calls a session without anybody a failure.
session() { { ps -o pid=,stat= -s "$1" || true; } | awk '$2 !~ /^Z/ { print $1 }'; }

# The sessions recorded under the names that match. A leader that is gone may have left members behind,
# and its number names nobody else as long as they are there.
leaders() {
  local file name pid born
  for file in "$pids"/*; do
    name=${file##*/}
    [[ -f $file && $name =~ ^($1)$ ]] || continue
    read -r pid born <"$file" || continue
    if recorded "$name" >/dev/null || { [[ $born && ! -e /proc/$pid ]] && [[ $(session "$pid") ]]; }; then
      echo "$pid"
    fi
  done
}

# end NAMES SECONDS: asks, waits so long, then kills.
end() {
  local sessions leader member until=$((SECONDS + $2)) left
  sessions=$(leaders "$1")
  for leader in $sessions; do kill -TERM -- "-$leader" 2>/dev/null || true; done
  while :; do
    left=''
    for leader in $sessions; do left+=" $(session "$leader")"; done
    [[ ${left// /} ]] || return 0
    ((SECONDS < until)) || break
    sleep 0.2
  done
  for member in $left; do kill -KILL "$member" 2>/dev/null || true; done
}

# One start or stop at a time in a folder.
take_turn() {
  exec 9>"$base/lock"
  flock -w 1200 9 || give_up "another up.sh or down.sh works in $base"
}
