#!/usr/bin/env bash
# Brings up a small real OpenStack on 127.0.0.1 out of Debian's packages, for tests; down.sh ends it.
#
# Real are the APIs, databases, quotas, the scheduler and the messages between the services: Keystone,
# Glance, Placement, Neutron, Nova and Cinder on MariaDB and RabbitMQ. Pretended are the machines (Nova's
# own fake driver: servers become active and nothing boots), the wires (testcloud/anybind.py: no packet
# flows, no address answers) and the disks behind volumes (testcloud/no_volume.py).
#
# Beyond its folder it only installs packages, for which it must be root. Nothing in the system's own
# configuration is read or written, no user is added, no service is registered. Each step looks first
# whether it is done, so it can be run again at any time. Settings: see lib.sh.
#
# $HAAR_OPENSTACK_DIR/openrc holds a member's credentials, admin-openrc the administrator's.

set -euo pipefail
umask 077
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
. "$here/packages.sh"
. "$here/services.sh"

check_settings() {
  [[ $base == /* ]] || give_up 'HAAR_OPENSTACK_DIR must begin with /'
  ((${#base} < 80)) || give_up 'HAAR_OPENSTACK_DIR is too long: a unix socket in it has a path of 107 bytes at most'
  [[ $HAAR_OPENSTACK_PASSWORD$HAAR_OPENSTACK_REGION =~ ^[A-Za-z0-9_.-]+$ ]] ||
    give_up 'password and region may have letters, digits and _ . - only'
  is_ours || give_up "$base is there and no cloud of this user's: name another folder with HAAR_OPENSTACK_DIR"
  mkdir -p "$base"/{home,glance/images,glance/staging,neutron,nova,cinder/coordination,keystone} \
    "$pids" "$logs" "$steps" "$etc/placement.d" "$base/lib"
  take_turn
  # These stand in the databases by now.
  local asked="$HAAR_OPENSTACK_OFFSET $HAAR_OPENSTACK_PASSWORD $HAAR_OPENSTACK_REGION"
  [[ -f $base/settings ]] || printf '%s\n' "$asked" >"$base/settings"
  [[ $(<"$base/settings") == "$asked" ]] ||
    give_up "$base was made with other settings: use these, another folder, or down.sh --wipe"
}

# step NAME COMMAND...: only where it has not come to its end with these versions of the packages.
step() {
  local name=$1; shift
  [[ -f $steps/$name && $(<"$steps/$name") == "$versions" ]] && return
  if ! "$@" >>"$logs/step-$name.log" 2>&1; then
    tail -n 30 "$logs/step-$name.log" >&2
    give_up "the step $name failed"
  fi
  printf '%s\n' "$versions" >"$steps/$name"
}

# ------------------------------------------------------------------------------------ configuration

write_configuration() {
  local login who file text name
  login=$(printf '%s\n' 'auth_type = password' "auth_url = $keystone" "password = $HAAR_OPENSTACK_PASSWORD" \
    'project_name = service' 'user_domain_name = Default' 'project_domain_name = Default' \
    "region_name = $HAAR_OPENSTACK_REGION")
  who=$(printf '%s\n' "www_authenticate_uri = $keystone" 'service_token_roles_required = true' \
    'service_token_roles = admin' "$login")
  local -A values=(
    [BASE]=$base [ETC]=$etc [REGION]=$HAAR_OPENSTACK_REGION [COMPUTE]=$HAAR_OPENSTACK_COMPUTE
    [LOGIN]=$login [WHO_ASKS]=$who
    [DATABASE]=mysql+pymysql://root@localhost [SOCKET]="unix_socket=$base/mysql.sock&charset=utf8"
    [RABBIT]=rabbit://guest:guest@127.0.0.1:$rabbit_port/ [RABBIT_PORT]=$rabbit_port
    [KEYSTONE]=$keystone [GLANCE]=$glance
    [GLANCE_PORT]=${glance##*:} [NEUTRON_PORT]=${neutron##*:} [NOVA_PORT]=${nova##*:}
    [CINDER_PORT]=${cinder##*:}
  )
  for file in "$here"/etc/*; do
    text=$(<"$file")
    for name in "${!values[@]}"; do text=${text//"@$name@"/"${values[$name]}"}; done
    printf '%s\n' "$text" >"$etc/${file##*/}"
  done
  : >"$etc/rabbitmq-env.conf"
  printf '[].\n' >"$etc/rabbitmq-plugins"
  # Neutron finds a driver by its entry point, which belongs to an installed package.
  local info=$base/lib/testcloud-1.dist-info
  mkdir -p "$info"
  cp -r "$here/testcloud" "$base/lib/"
  printf 'Metadata-Version: 2.1\nName: testcloud\nVersion: 1\n' >"$info/METADATA"
  printf '[neutron.ml2.mechanism_drivers]\nanybind = testcloud.anybind:AnyBind\n' >"$info/entry_points.txt"
  credentials admin admin | sed 's/^/export /' >"$base/admin-openrc"
  credentials demo demo | sed 's/^/export /' >"$base/openrc"
}

# credentials PROJECT USER
credentials() {
  printf '%s\n' "OS_AUTH_URL=$keystone/v3" "OS_USERNAME=$2" "OS_PASSWORD=$HAAR_OPENSTACK_PASSWORD" \
    "OS_PROJECT_NAME=$1" OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default \
    "OS_REGION_NAME=$HAAR_OPENSTACK_REGION" OS_IDENTITY_API_VERSION=3
}

# ------------------------------------------------------------------------------------------ contents

# contents PROGRAM: one of testcloud's, as the administrator.
contents() {
  local words catalog
  mapfile -t words < <(credentials admin admin)
  catalog=$(printf '%s\n' "glance image $glance" "placement placement $placement" "neutron network $neutron" \
    "nova compute $nova/v2.1" "cinder volumev3 $cinder/v3/\$(project_id)s")
  "${bare[@]}" "${words[@]}" CATALOG="$catalog" python3 -m "testcloud.$1"
}

fill() {
  contents contents >"$logs/contents.log" 2>&1 && return
  tail -n 30 "$logs/contents.log" >&2
  give_up 'the cloud could not be filled'
}

# --------------------------------------------------------------------------------------------- main

check_settings
check_ports
install_packages
versions=$(installed | sha256sum)
write_configuration
start_broker
start_database
prepare_databases
start_apis
step catalog contents catalog
start_nova
wait_for_apis
fill
wait_for_heartbeats
step hosts nova_manage cell_v2 discover_hosts
check_listeners
echo "the cloud is up after $SECONDS s: . $base/openrc"
