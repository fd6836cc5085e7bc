# The packages that up.sh needs, and how they get installed. To be sourced.

# Python code and the two servers' programs. The packages named after services (nova-api,
# mariadb-server) would also bring users, questions and daemons that start by themselves.
packages=(
  curl iproute2 mariadb-server-core mariadb-client-core rabbitmq-server uwsgi-core uwsgi-plugin-python3
  python3-pymysql python3-openstackclient
  python3-keystone python3-glance python3-placement python3-neutron python3-nova python3-cinder
)

# Name and version of each that is installed.
installed() {
  dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' "${packages[@]}" 2>/dev/null |
    awk '$1 == "installed"'
}

# Debian asks this script before a package starts a service; 101 means no. One that an administrator has
# put there comes back afterwards.
policy=/usr/sbin/policy-rc.d

forbid_starts() {
  if [[ -e $policy ]] && ! grep -qs 'haar: installing' "$policy"; then
    mv "$policy" "$policy.haar-kept"
  fi
  printf '#!/bin/sh\n# haar: installing packages for tests\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap allow_starts EXIT
}

allow_starts() {
  trap - EXIT
  rm -f "$policy"
  [[ ! -e $policy.haar-kept ]] || mv "$policy.haar-kept" "$policy"
}

apt() {
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@" >>"$logs/packages.log" 2>&1 9>&-
}

install_packages() {
  (($(installed | wc -l) < ${#packages[@]})) || return 0
  ((EUID == 0)) || give_up "root must first install: ${packages[*]}"
  umask 022
  forbid_starts
  if ! apt install -y --no-install-recommends "${packages[@]}"; then
    # Lists that are too old name versions that the mirror no longer has.
    apt update || true
    apt install -y --no-install-recommends "${packages[@]}" || {
      tail -n 20 "$logs/packages.log" >&2
      give_up 'the packages could not be installed'
    }
  fi
  allow_starts
  umask 077
}
