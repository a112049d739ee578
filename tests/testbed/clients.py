"""What real clients make of the Compute API at a URL, as JSON: see `clients`."""

import contextlib
import io
import json
import sys

import openstack
from keystoneauth1 import session, token_endpoint
from novaclient import client
from novaclient.v2 import shell

url, server = sys.argv[1:]


def fields(resources, *names):
    return [{name: getattr(resource, name, "absent") for name in names} for resource in resources]


def novaclient(version, base):
    auth = token_endpoint.Token(f"{url}{base}", "none")
    return client.Client(version, session=session.Session(auth=auth))


def virtual_interface_list(version, base):
    """The rows of the table that `nova virtual-interface-list` prints. The command itself asks for the server first,
    which is not an agent's to answer."""
    nova = novaclient(version, base)
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        shell._print_virtual_interface_list(nova, nova.virtual_interfaces.list(server))
    rows = [line for line in table.getvalue().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def sdk():
    connection = openstack.connect(auth_type="none", endpoint=f"{url}/v2.1", compute_api_version="2.1")
    compute = connection.compute
    attachments = list(compute.server_interfaces(server))
    one = compute.get_server_interface(attachments[0], server=server)
    try:
        list(compute.servers())
        refused = None
    except openstack.exceptions.HttpException as error:
        refused = [error.status_code, error.details]
    return {
        "server_interfaces": fields(attachments, "port_id", "mac_addr", "port_state", "net_id", "fixed_ips"),
        "server_interface": one.mac_addr,
        "extensions": [extension.alias for extension in compute.extensions()],
        "refused": refused,
    }


two = novaclient("2", "/v2/p1")
json.dump(
    {
        "nova 2": fields(two.virtual_interfaces.list(server), "id", "mac_address"),
        "nova 2.1": fields(novaclient("2.1", "/v2.1").virtual_interfaces.list(server), "id", "mac_address", "net_id"),
        "nova 2.12": fields(novaclient("2.12", "/v2.1").virtual_interfaces.list(server), "id", "mac_address", "net_id"),
        "nova virtual-interface-list": virtual_interface_list("2.12", "/v2.1/p1"),
        "nova interface_list": fields(novaclient("2.43", "/v2.1").servers.interface_list(server), "port_id", "mac_addr"),
        "nova versions": fields(two.versions.list(), "id", "version"),
        "nova extensions": [extension.alias for extension in two.list_extensions.show_all()],
        "nova limits": [[limit.verb, limit.value, limit.unit] for limit in two.limits.get().rate],
        "sdk": sdk(),
    },
    sys.stdout,
)
