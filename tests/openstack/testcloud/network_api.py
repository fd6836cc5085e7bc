"""Neutron's API alone, in one process: the server without the workers that agents would talk to."""
import neutron.cmd.eventlet  # noqa: F401  (replaces calls that block; nothing may be imported before)
import signal

from neutron import server, service
from neutron_lib.callbacks import events, registry, resources


def serve():
    api = service.serve_wsgi(service.NeutronApiService)
    registry.publish(resources.PROCESS, events.AFTER_SPAWN, None)
    # Nothing has to be handed over, so it ends at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    api.wait()


server.boot_server(serve)
