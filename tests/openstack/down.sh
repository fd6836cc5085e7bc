#!/usr/bin/env bash
# Ends the cloud that up.sh started. What it has written stays, so that the next start is quick; with
# --wipe that goes too. Packages stay installed. Only processes are ended that up.sh recorded, each with
# the session it leads.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ -d $pids ]] || { echo "no cloud in $base"; exit 0; }
is_ours || give_up "$base is no cloud of this user's: nothing was ended or wiped"
take_turn

end '(keystone|glance|placement|neutron|nova|cinder).*' 15
end 'rabbitmq|mariadb' 20
end 'epmd' 5
rm -f "$pids"/*

if [[ ${1-} == --wipe ]]; then
  rm -rf "$base"
  echo "the cloud in $base is gone"
else
  echo "the cloud in $base is down"
fi
