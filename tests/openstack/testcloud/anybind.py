"""Neutron's wiring, pretended: every port is bound on every host at once, and no agent is there."""
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class AnyBind(api.MechanismDriver):
    """The mechanism driver `anybind`, found by its entry point."""

    def initialize(self):
        """Nothing to set up."""

    def bind_port(self, context):
        for segment in context.segments_to_bind:
            details = {portbindings.CAP_PORT_FILTER: True}
            context.set_binding(
                segment[api.ID], portbindings.VIF_TYPE_OVS, details, status=constants.PORT_STATUS_ACTIVE)
            break
