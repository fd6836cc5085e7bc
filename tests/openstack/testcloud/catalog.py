"""The services' own users, and where each service is. Makes what is missing; can run again."""
import os

import openstack

identity = openstack.connect().identity
region = os.environ['OS_REGION_NAME']

project = identity.find_project('service') or identity.create_project(name='service', domain_id='default')
admin = identity.find_role('admin')
known = {service.type: service for service in identity.services()}
placed = {(endpoint.service_id, endpoint.interface) for endpoint in identity.endpoints()}

# One line a service: its name, its type, its address.
for name, kind, url in (line.split() for line in os.environ['CATALOG'].splitlines() if line.strip()):
    user = identity.find_user(name, domain_id='default') or identity.create_user(
        name=name, domain_id='default', password=os.environ['OS_PASSWORD'])
    identity.put(f'/projects/{project.id}/users/{user.id}/roles/{admin.id}')
    service = known.get(kind) or identity.create_service(name=name, type=kind)
    for interface in ('public', 'internal', 'admin'):
        if (service.id, interface) not in placed:
            identity.create_endpoint(service_id=service.id, interface=interface, region_id=region, url=url)
