"""What an operator puts into a cloud. Makes what is missing, sets quotas every time; can run again.

The user `demo` is a member of two projects: `demo`, which has limits, and `unlimited`, which has none.
"""
import os

import openstack

cloud = openstack.connect()
identity, compute, network, image = cloud.identity, cloud.compute, cloud.network, cloud.image


def good(response):
    response.raise_for_status()
    return response.json()


def user_and_projects():
    projects = {}
    for name in ('demo', 'unlimited'):
        projects[name] = identity.find_project(name) or identity.create_project(
            name=name, domain_id='default')
    user = identity.find_user('demo', domain_id='default') or identity.create_user(
        name='demo', domain_id='default', password=os.environ['OS_PASSWORD'],
        default_project_id=projects['demo'].id)
    member = identity.find_role('member')
    for project in projects.values():
        identity.put(f'/projects/{project.id}/users/{user.id}/roles/{member.id}')
    return {name: project.id for name, project in projects.items()}


COMPUTE = dict(instances=10, cores=20, ram=51200, key_pairs=50)
NETWORK = dict(network=10, subnet=10, router=5, floatingip=5, port=100, security_group=10,
               security_group_rule=100)
VOLUMES = dict(volumes=10, gigabytes=500, snapshots=10)


def quotas(project, of):
    good(compute.put(f'/os-quota-sets/{project}', json={'quota_set': of(COMPUTE)}))
    good(network.put(f'/quotas/{project}', json={'quota': of(NETWORK)}))
    good(cloud.block_storage.put(f'/os-quota-sets/{project}', json={'quota_set': of(VOLUMES)}))


# Cores, MB of memory, GB of disk. `xl` fits the quota and no MediumFake host, `xxl` not even the quota.
FLAVORS = {
    'm.tiny': (1, 512, 1), 'm.small': (1, 2048, 10), 'm.medium': (2, 4096, 20), 'm.large': (4, 8192, 40),
    'c.small': (1, 1024, 10), 'c.medium': (2, 2048, 10), 'c.large': (4, 4096, 20), 'c.xl': (16, 8192, 20),
    'c.xxl': (32, 16384, 20),
}


def flavors():
    there = {flavor.name for flavor in compute.flavors()}
    for name, (vcpus, ram, disk) in FLAVORS.items():
        if name not in there:
            compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk)


# The least disk in GB; the last image is no image yet, since nobody brings its bytes.
IMAGES = {'Debian 12': 0, 'Ubuntu Jammy': 3, 'Empty': None}


def images():
    there = {one.name for one in image.images()}
    for name, min_disk in IMAGES.items():
        if name in there:
            continue
        made = good(image.post('/images', json=dict(
            name=name, disk_format='raw', container_format='bare', visibility='public',
            min_disk=min_disk or 0)))
        if min_disk is not None:
            image.put(f'/images/{made["id"]}/file', data=name.encode().ljust(1 << 16, b'\0'),
                      headers={'Content-Type': 'application/octet-stream'}).raise_for_status()


def outside():
    public = network.find_network('public') or network.create_network(
        name='public', is_router_external=True, provider_network_type='flat',
        provider_physical_network='outside')
    if not list(network.subnets(network_id=public.id)):
        network.create_subnet(
            name='public', network_id=public.id, ip_version=4, cidr='203.0.113.0/24',
            gateway_ip='203.0.113.1', is_dhcp_enabled=False,
            allocation_pools=[dict(start='203.0.113.10', end='203.0.113.250')])


projects = user_and_projects()
quotas(projects['demo'], lambda limits: limits)
quotas(projects['unlimited'], lambda limits: dict.fromkeys(limits, -1))
flavors()
images()
outside()
