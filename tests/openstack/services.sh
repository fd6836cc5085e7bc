# How up.sh starts each service and knows that it is ready. To be sourced.

port() { echo $(($1 + HAAR_OPENSTACK_OFFSET)); }
address() { echo "http://127.0.0.1:$(port "$1")"; }
rabbit_port=$(port 5672) rabbit_peers=$(port 5673) names_port=$(port 4369)
keystone=$(address 5000) glance=$(address 9292) placement=$(address 8778)
neutron=$(address 9696) nova=$(address 8774) cinder=$(address 8776)

# Nothing of the caller's shell (another Python, a proxy) reaches the services. The green resolver would
# ask name servers about 127.0.0.1.
bare=(
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TZ=UTC "HOME=$base/home" "PYTHONPATH=$base/lib"
  EVENTLET_NO_GREENDNS=yes "OS_KEYSTONE_CONFIG_FILES=$etc/keystone.conf" "OS_PLACEMENT_CONFIG_DIR=$etc"
)

# start NAME COMMAND...: leads a session of its own, so that down.sh reaches all that comes of it.
start() {
  local name=$1; shift
  recorded "$name" >/dev/null && return
  "${bare[@]}" setsid "$@" >>"$logs/$name.log" 2>&1 </dev/null 9>&- &
  printf '%s %s\n' "$!" "$(birth $!)" >"$pids/$name"
}

# until_ready NAME WHAT COMMAND...: until COMMAND says yes; not longer than NAME lives.
until_ready() {
  local name=$1 what=$2 end=$((SECONDS + HAAR_OPENSTACK_PATIENCE)); shift 2
  until "$@" >/dev/null 2>&1; do
    recorded "$name" >/dev/null && ((SECONDS < end)) && sleep 0.3 && continue
    tail -n 30 "$logs/$name.log" >&2
    give_up "$name has ended or is too slow: no $what (see $logs/$name.log)"
  done
}

answers() { curl --noproxy '*' -sf -m 5 -o /dev/null "$1"; }
is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
python() { "${bare[@]}" python3 "$@"; }
sql() { "${bare[@]}" mariadb --no-defaults -S "$base/mysql.sock" -u root -N -B -e "$1"; }

# Somebody else's server on one of our ports would answer in place of ours.
check_ports() {
  local pair
  for pair in "rabbitmq $rabbit_port" "rabbitmq $rabbit_peers" "epmd $names_port" "keystone ${keystone##*:}" \
    "glance ${glance##*:}" "placement ${placement##*:}" "neutron ${neutron##*:}" "nova-api ${nova##*:}" \
    "cinder-api ${cinder##*:}"; do
    recorded "${pair% *}" >/dev/null || ! is_open "${pair#* }" ||
      give_up "port ${pair#* } for ${pair% *} is taken: end what has it, or set HAAR_OPENSTACK_OFFSET"
  done
}

# ----------------------------------------------------------------------------- broker and database

# Erlang's list of names is started by us: started by the broker it would listen on every address and
# outlive it. The broker keeps nothing between two runs.
start_broker() {
  start epmd epmd -address 127.0.0.1 -port "$names_port"
  recorded rabbitmq >/dev/null && return
  rm -rf "$base/rabbitmq"
  mkdir -p "$base/rabbitmq"
  local programs=(/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin)
  start rabbitmq env "HOME=$base/rabbitmq" ERL_EPMD_ADDRESS=127.0.0.1 "ERL_EPMD_PORT=$names_port" \
    "RABBITMQ_CONF_ENV_FILE=$etc/rabbitmq-env.conf" "RABBITMQ_CONFIG_FILE=$etc/rabbitmq.conf" \
    "RABBITMQ_ENABLED_PLUGINS_FILE=$etc/rabbitmq-plugins" \
    "RABBITMQ_NODENAME=haar$HAAR_OPENSTACK_OFFSET@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    "RABBITMQ_NODE_PORT=$rabbit_port" "RABBITMQ_DIST_PORT=$rabbit_peers" \
    "RABBITMQ_MNESIA_BASE=$base/rabbitmq/mnesia" "RABBITMQ_LOG_BASE=$base/rabbitmq" \
    "RABBITMQ_PID_FILE=$base/rabbitmq/pid" \
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}" \
    "${programs[0]}/rabbitmq-server"
}

make_database() {
  [[ ! -d $base/mysql ]] || return 0
  rm -rf "$base/mysql.new"
  "${bare[@]}" mariadb-install-db --no-defaults --datadir="$base/mysql.new" --user="$(id -un)" \
    --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve || return 1
  mv "$base/mysql.new" "$base/mysql"
}

start_database() {
  step mysql make_database
  start mariadb mariadbd --defaults-file="$etc/mariadb.cnf" --user="$(id -un)"
  until_ready mariadb 'socket' sql 'SELECT 1'
}

# ------------------------------------------------------------------------------------------ schemas

# schema SERVICE DATABASE...: one that was cut off cannot go on, so it begins with empty databases.
schema() {
  local service=$1 database; shift
  [[ -f $steps/$service ]] || for database; do
    sql "DROP DATABASE IF EXISTS $database; CREATE DATABASE $database CHARACTER SET utf8mb3"
  done
  step "$service" "schema_of_$service"
}

keystone_manage() { "${bare[@]}" keystone-manage --config-file "$etc/keystone.conf" "$@"; }
nova_manage() {
  python -c 'import sys; from nova.cmd.manage import main; sys.exit(main())' --config-file "$etc/nova.conf" "$@"
}

schema_of_keystone() {
  local owner=(--keystone-user "$(id -un)" --keystone-group "$(id -gn)")
  keystone_manage db_sync && keystone_manage fernet_setup "${owner[@]}" &&
    keystone_manage credential_setup "${owner[@]}" &&
    keystone_manage bootstrap --bootstrap-password "$HAAR_OPENSTACK_PASSWORD" \
      --bootstrap-region-id "$HAAR_OPENSTACK_REGION" --bootstrap-public-url "$keystone/v3" \
      --bootstrap-internal-url "$keystone/v3" --bootstrap-admin-url "$keystone/v3"
}
schema_of_glance() {
  python -c 'from glance.cmd.manage import main; main()' --config-file "$etc/glance-api.conf" db_sync
}
schema_of_placement() {
  "${bare[@]}" placement-manage --config-dir "$etc/placement.d" --config-file "$etc/placement.conf" db sync
}
schema_of_neutron() {
  python -c 'from neutron.db.migration.cli import main; main()' --config-file "$etc/neutron.conf" upgrade heads
}
schema_of_nova() {
  nova_manage api_db sync &&
    nova_manage cell_v2 map_cell0 --database_connection \
      "mysql+pymysql://root@localhost/nova_cell0?unix_socket=$base/mysql.sock&charset=utf8" &&
    nova_manage db sync || return 1
  [[ $(nova_manage cell_v2 list_cells) == *' cell1 '* ]] || nova_manage cell_v2 create_cell --name cell1
}
schema_of_cinder() {
  python -c 'from cinder.cmd.manage import main; main()' --config-file "$etc/cinder.conf" db sync
}

# In two lines side by side, of about the same length.
prepare_databases() {
  (schema neutron neutron; schema glance glance) & local one=$!
  (schema keystone keystone; schema nova nova_api nova nova_cell0; schema placement placement
    schema cinder cinder) & local other=$!
  wait "$one" && wait "$other" || exit 1
}

# ----------------------------------------------------------------------------------------- services

start_python() { start "$1" python3 -c "from $2 import main; main()" --config-file "$etc/$3"; }

# Keystone and Placement are WSGI applications and no programs. uWSGI closes a connection after each
# answer without saying so; the header says it, or clients would use a connection that is closing.
start_wsgi() {
  start "$1" uwsgi-core --plugin python3 --http-socket "${2#http://}" --module "$3" --need-app --master \
    --processes 1 --threads 8 --enable-threads --lazy-apps --die-on-term --no-orphans \
    --add-header 'Connection: close' --buffer-size 65535 --post-buffering 65536 --listen 100 \
    --disable-logging --procname-prefix "$1 "
}

start_apis() {
  until_ready rabbitmq 'port' is_open "$rabbit_port"
  start_wsgi keystone "$keystone" 'keystone.server.wsgi:initialize_public_application()'
  start_wsgi placement "$placement" 'placement.wsgi:init_application()'
  start neutron python3 -m testcloud.network_api --config-file "$etc/neutron.conf"
  start_python glance glance.cmd.api glance-api.conf
  start_python cinder-api cinder.cmd.api cinder.conf
  start_python cinder-scheduler cinder.cmd.scheduler cinder.conf
  start_python cinder-volume cinder.cmd.volume cinder.conf
  until_ready keystone 'answer' answers "$keystone/v3"
}

# Nova's services look for Placement in the catalog as they start, and some end when it is not there.
start_nova() {
  until_ready placement 'answer' answers "$placement/"
  # Another driver than the last time needs a new compute service and nothing else.
  [[ -f $base/driver && $(<"$base/driver") == "$HAAR_OPENSTACK_COMPUTE" ]] || end nova-compute 15
  printf '%s\n' "$HAAR_OPENSTACK_COMPUTE" >"$base/driver"
  start_python nova-compute nova.cmd.compute nova.conf
  start_python nova-conductor nova.cmd.conductor nova.conf
  start_python nova-scheduler nova.cmd.scheduler nova.conf
  start_python nova-api nova.cmd.api_os_compute nova.conf
}

wait_for_apis() {
  until_ready glance 'answer' answers "$glance/versions"
  until_ready neutron 'answer' answers "$neutron/"
  until_ready nova-api 'answer' answers "$nova/"
  until_ready cinder-api 'answer' answers "$cinder/"
}

# A service that beat after it was started takes messages; older beats are from the run before.
has_beaten() {
  [[ $(sql "SELECT COUNT(*) FROM $1.services WHERE deleted = 0 AND \`binary\` = '$2'
    AND updated_at > FROM_UNIXTIME($(stat -c %Y "$pids/$2"))") != 0 ]]
}

wait_for_heartbeats() {
  local service
  for service in nova-conductor nova-scheduler nova-compute cinder-scheduler cinder-volume; do
    until_ready "$service" 'heartbeat' has_beaten "${service%-*}" "$service"
  done
}

# This cloud has known passwords: nobody else may reach it.
check_listeners() {
  local name leader ours='' open
  for name in "$pids"/*; do
    leader=$(recorded "${name##*/}") || continue
    ours+=" $(session "$leader" | tr '\n' ' ')"
  done
  open=$(ss -Hltunp | grep -E "pid=($(echo $ours | tr ' ' '|'))," | awk '{ print $5 }' |
    grep -v -e '^127\.' -e '^\[::1\]:' || true)
  [[ ! $open ]] || give_up "something can be reached from elsewhere:" $open
}
