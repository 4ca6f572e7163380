"""python-cinderclient as older programs use it, among them the compute service: it sends what a user names and nothing else,
and polls. Where to connect, and as whom, stands in the usual OS_* variables."""

import time

import openstack
from cinderclient import client, exceptions

from checks import check, equal, holds, main, refuses

WAIT_S = 45
SERVER = "5e12e12e-0000-4000-8000-0000000c17d3"
CONNECTOR = {
    "platform": "x86_64",
    "os_type": "linux",
    "ip": "127.0.0.1",
    "host": "compute-1",
    "multipath": False,
    "initiator": "iqn.1993-08.org.debian:01:abcdef",
    "do_local_attach": False,
    "uuid": "0e9b2c0e-0000-4000-8000-000000000001",
    "system uuid": "0e9b2c0e-0000-4000-8000-000000000002",
}


def settled(manager, item):
    end = time.monotonic() + WAIT_S
    while True:
        found = manager.get(item.id)
        if not (found.status.endswith("ing") or found.status in ("backing-up", "restoring-backup")):
            return found
        assert time.monotonic() < end, f"{item.id} stays {found.status}"


def available(manager, item):
    found = settled(manager, item)
    equal(found.status, "available")
    return found


def gone(manager, item):
    end = time.monotonic() + WAIT_S
    while True:
        try:
            found = manager.get(item.id)
        except exceptions.NotFound:
            return
        assert time.monotonic() < end, f"{item.id} stays {found.status}"


def make_volume(cinder, size=1, **fields):
    return available(cinder.volumes, cinder.volumes.create(size, **fields))


def drop_volume(cinder, volume):
    cinder.volumes.delete(volume)
    gone(cinder.volumes, volume)


@check("volumes", "create, list, update and delete")
def _(cinder):
    volume = make_volume(cinder, name="old style", description="text", metadata={"a": "1"}, availability_zone="nova")
    holds(volume, size=1, name="old style", bootable="false", encrypted=False, multiattach=False, metadata={"a": "1"})
    equal([row.id for row in cinder.volumes.list(search_opts={"name": "old style"})], [volume.id])
    equal([row.id for row in cinder.volumes.list(detailed=False, search_opts={"metadata": {"a": "1"}})], [volume.id])
    equal(cinder.volumes.list(search_opts={"status": "error"}), [])
    equal(cinder.volumes.find(name="old style").id, volume.id)
    cinder.volumes.update(volume, name="new style", description="changed")
    holds(cinder.volumes.get(volume.id), name="new style", description="changed")
    drop_volume(cinder, volume)


@check("volumes", "lists are sorted and paged as asked")
def _(cinder):
    made = [make_volume(cinder, name=name) for name in ("b", "c", "a")]
    equal([row.name for row in cinder.volumes.list(sort="name:asc")], ["a", "b", "c"])
    equal([row.name for row in cinder.volumes.list(sort="name:desc", limit=2)], ["c", "b"])
    first = cinder.volumes.list(sort="name:asc", limit=1)
    rest = cinder.volumes.list(sort="name:asc", marker=first[0].id)
    equal([row.name for row in first + rest], ["a", "b", "c"])
    refuses(exceptions.BadRequest, cinder.volumes.list, limit=-1)
    for volume in made:
        drop_volume(cinder, volume)


@check("volumes", "metadata is set, replaced and deleted")
def _(cinder):
    volume = make_volume(cinder, metadata={"a": "1"})
    cinder.volumes.set_metadata(volume, {"b": "2"})
    equal(cinder.volumes.get(volume.id).metadata, {"a": "1", "b": "2"})
    cinder.volumes.delete_metadata(volume, ["a"])
    equal(cinder.volumes.get(volume.id).metadata, {"b": "2"})
    cinder.volumes.update_all_metadata(volume, {"c": "3"})
    equal(cinder.volumes.get(volume.id).metadata, {"c": "3"})
    cinder.volumes.delete_metadata(volume, ["c"])
    equal(cinder.volumes.get(volume.id).metadata, {})
    drop_volume(cinder, volume)


@check("volumes", "the actions of a compute service: reserve, attach, begin and roll detaching, detach")
def _(cinder):
    volume = make_volume(cinder)
    cinder.volumes.reserve(volume)
    holds(cinder.volumes.get(volume.id), status="attaching")
    cinder.volumes.unreserve(volume)
    cinder.volumes.attach(volume, SERVER, "/dev/vdb", mode="rw")
    found = cinder.volumes.get(volume.id)
    holds(found, status="in-use")
    cinder.volumes.begin_detaching(volume)
    cinder.volumes.roll_detaching(volume)
    holds(cinder.volumes.get(volume.id), status="in-use")
    refuses(exceptions.BadRequest, cinder.volumes.delete, volume, code=400)
    cinder.volumes.detach(volume, attachment_uuid=found.attachments[0]["attachment_id"])
    holds(cinder.volumes.get(volume.id), status="available", attachments=[])
    drop_volume(cinder, volume)


@check("volumes", "extend, bootable, read-only, image metadata, reset, force delete")
def _(cinder):
    volume = make_volume(cinder)
    cinder.volumes.extend(volume, 2)
    holds(available(cinder.volumes, volume), size=2)
    cinder.volumes.set_bootable(volume, True)
    cinder.volumes.update_readonly_flag(volume, True)
    cinder.volumes.set_image_metadata(volume, {"os": "linux"})
    equal(cinder.volumes.show_image_metadata(volume)[1]["metadata"], {"os": "linux"})
    cinder.volumes.delete_image_metadata(volume, ["os"])
    holds(cinder.volumes.get(volume.id), bootable="true")
    image = (False, "image", "bare", "raw", "private", False)
    refuses(exceptions.BadRequest, cinder.volumes.upload_to_image, volume, *image, code=400)
    cinder.volumes.reset_state(volume, "error")
    holds(cinder.volumes.get(volume.id), status="error")
    cinder.volumes.force_delete(volume)
    gone(cinder.volumes, volume)


@check("volumes", "the encryption of one that has none")
def _(cinder):
    volume = make_volume(cinder)
    equal(cinder.volumes.get_encryption_metadata(volume.id)["encryption_key_id"], None)
    drop_volume(cinder, volume)


@check("snapshots", "create, list, update, metadata and delete")
def _(cinder):
    volume = make_volume(cinder)
    snapshots = cinder.volume_snapshots
    snapshot = available(snapshots, snapshots.create(volume.id, name="s", description="d", metadata={"a": "1"}))
    holds(snapshot, name="s", size=1, volume_id=volume.id, metadata={"a": "1"}, progress="100%")
    equal([row.id for row in snapshots.list(search_opts={"volume_id": volume.id})], [snapshot.id])
    snapshots.update(snapshot, name="t")
    snapshots.set_metadata(snapshot, {"b": "2"})
    snapshots.delete_metadata(snapshot, ["a"])
    holds(snapshots.get(snapshot.id), name="t", metadata={"b": "2"})
    snapshots.update_all_metadata(snapshot, {"c": "3"})
    equal(snapshots.get(snapshot.id).metadata, {"c": "3"})
    cinder.volumes.revert_to_snapshot(volume, snapshot)
    available(cinder.volumes, volume)
    snapshots.reset_state(snapshot, "error")
    snapshots.delete(snapshot, force=True)
    gone(snapshots, snapshot)
    drop_volume(cinder, volume)


@check("operator", "services, pools, zones, limits and filters")
def _(cinder):
    found = {row.binary: row for row in cinder.services.list()}
    assert {"cinder-scheduler", "cinder-volume"} <= set(found), found
    holds(found["cinder-volume"], state="up", status="enabled", zone="nova")
    [pool] = cinder.pools.list(detailed=True)
    assert pool.name.startswith(found["cinder-volume"].host), pool.name
    equal([zone.zoneName for zone in cinder.availability_zones.list()], ["nova"])
    limits = {limit.name: limit.value for limit in cinder.limits.get().absolute}
    equal(limits["totalVolumesUsed"], 0)
    assert "maxTotalVolumeGigabytes" in limits, limits
    assert "volume" in {row.resource for row in cinder.resource_filters.list()}


@check("types", "types, keys, access and QoS")
def _(cinder):
    kind = cinder.volume_types.create("cinder-type", description="d", is_public=False)
    kind.set_keys({"tier": "gold", "x": "y"})
    equal(cinder.volume_types.get(kind.id).get_keys(), {"tier": "gold", "x": "y"})
    kind.unset_keys(["x"])
    equal(cinder.volume_types.get(kind.id).get_keys(), {"tier": "gold"})
    cinder.volume_type_access.add_project_access(kind, "d00d00d00d00d00d00d00d00d00d00d3")
    equal([row.project_id for row in cinder.volume_type_access.list(kind)], ["d00d00d00d00d00d00d00d00d00d00d3"])
    cinder.volume_type_access.remove_project_access(kind, "d00d00d00d00d00d00d00d00d00d00d3")
    assert kind.id in [row.id for row in cinder.volume_types.list(is_public=None)]
    qos = cinder.qos_specs.create("cinder-qos", {"consumer": "back-end", "total_iops_sec": "100"})
    cinder.qos_specs.set_keys(qos.id, {"read_iops_sec": "50"})
    cinder.qos_specs.unset_keys(qos.id, ["total_iops_sec"])
    equal(cinder.qos_specs.get(qos.id).specs, {"read_iops_sec": "50"})
    cinder.qos_specs.associate(qos.id, kind.id)
    equal([row.id for row in cinder.qos_specs.get_associations(qos.id)], [kind.id])
    refuses(exceptions.BadRequest, cinder.qos_specs.delete, qos, code=400)
    cinder.qos_specs.disassociate_all(qos.id)
    cinder.qos_specs.delete(qos)
    cinder.volume_types.update(kind, name="cinder-renamed")
    cinder.volume_types.delete(kind)
    equal(cinder.volume_types.default().name, "__DEFAULT__")


@check("types", "encryption types")
def _(cinder):
    kind = cinder.volume_types.create("cinder-sealed")
    specs = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256, "control_location": "front-end"}
    cinder.volume_encryption_types.create(kind, specs)
    holds(cinder.volume_encryption_types.get(kind.id), **specs)
    cinder.volume_encryption_types.update(kind, {"key_size": 512})
    holds(cinder.volume_encryption_types.get(kind.id), key_size=512)
    cinder.volume_encryption_types.delete(kind)
    cinder.volume_types.delete(kind)


@check("quotas", "sets, usage, defaults, classes, and a refusal when one is full")
def _(cinder):
    project = "d00d00d00d00d00d00d00d00d00d00d4"
    cinder.quotas.update(project, volumes=3, gigabytes=30, per_volume_gigabytes=5)
    holds(cinder.quotas.get(project), volumes=3, gigabytes=30, per_volume_gigabytes=5)
    equal(cinder.quotas.get(project, usage=True).volumes, {"limit": 3, "in_use": 0, "reserved": 0})
    defaults = cinder.quotas.defaults(project)
    cinder.quotas.delete(project)
    equal(cinder.quotas.get(project).volumes, defaults.volumes)
    equal(cinder.quota_classes.get("default").volumes, defaults.volumes)
    refuses(exceptions.BadRequest, cinder.quotas.update, project, no_such_key=1, code=400)


@check("services", "disabled with a reason, enabled; frozen, thawed; capabilities")
def _(cinder):
    [service] = cinder.services.list(binary="cinder-volume")
    cinder.services.disable_log_reason(service.host, "cinder-volume", "why")
    [found] = cinder.services.list(binary="cinder-volume")
    holds(found, status="disabled", disabled_reason="why")
    cinder.services.enable(service.host, "cinder-volume")
    cinder.services.freeze_host(service.host)
    cinder.services.thaw_host(service.host)
    assert cinder.capabilities.get(service.host).vendor_name
    equal(cinder.clusters.list(), [])
    equal(cinder.workers.clean(), ([], []))


@check("attachments", "as the compute service does it, to connection info and back")
def _(cinder):
    volume = make_volume(cinder)
    made = cinder.attachments.create(volume.id, None, SERVER, mode="rw")
    equal((made["status"], made["connection_info"]), ("reserved", {}))
    holds(cinder.volumes.get(volume.id), status="reserved")
    info = cinder.attachments.update(made["id"], CONNECTOR).connection_info
    equal((info["driver_volume_type"], info["access_mode"], info["encrypted"]), ("nbd", "rw", False))
    assert info["name"] and len(info["hosts"]) == len(info["ports"]), info
    cinder.attachments.complete(made["id"])
    holds(cinder.attachments.show(made["id"]), status="attached", attach_mode="rw")
    volume = cinder.volumes.get(volume.id)
    holds(volume, status="in-use")
    equal(volume.attachments[0]["attachment_id"], made["id"])
    equal([row.id for row in cinder.attachments.list(search_opts={"volume_id": volume.id})], [made["id"]])
    cinder.attachments.delete(made["id"])
    refuses(exceptions.NotFound, cinder.attachments.show, made["id"], code=404)
    drop_volume(cinder, available(cinder.volumes, volume))


@check("attachments", "the older way: initialize_connection and terminate_connection")
def _(cinder):
    volume = make_volume(cinder)
    cinder.volumes.reserve(volume)
    info = cinder.volumes.initialize_connection(volume, CONNECTOR)
    equal(info["driver_volume_type"], "nbd")
    assert info["data"]["name"], info
    cinder.volumes.attach(volume, SERVER, "/dev/vdb")
    holds(cinder.volumes.get(volume.id), status="in-use")
    cinder.volumes.begin_detaching(volume)
    cinder.volumes.terminate_connection(volume, CONNECTOR)
    cinder.volumes.detach(volume)
    drop_volume(cinder, available(cinder.volumes, volume))


@check("transfers", "offered, listed, accepted")
def _(cinder):
    volume = make_volume(cinder)
    made = cinder.transfers.create(volume.id, name="t")
    equal([row.id for row in cinder.transfers.list()], [made.id])
    refuses(exceptions.BadRequest, cinder.transfers.accept, made.id, "wrong", code=400)
    cinder.transfers.accept(made.id, made.auth_key)
    drop_volume(cinder, available(cinder.volumes, volume))


@check("groups", "group types, groups, group snapshots and copies")
def _(cinder):
    kind = cinder.group_types.create("cinder-groups")
    kind.set_keys({"consistent_group_snapshot_enabled": "<is> True"})
    default = cinder.volume_types.default()
    group = available(cinder.groups, cinder.groups.create(kind.id, default.id, name="g"))
    volume = make_volume(cinder, group_id=group.id, volume_type=default.id)
    equal(cinder.groups.get(group.id, list_volume=True).volumes, [volume.id])
    snapshot = available(cinder.group_snapshots, cinder.group_snapshots.create(group.id, name="s"))
    made = cinder.groups.create_from_src(snapshot.id, None, name="copy")
    copy = available(cinder.groups, cinder.groups.get(made["id"]))
    cinder.groups.delete(copy, delete_volumes=True)
    gone(cinder.groups, copy)
    cinder.group_snapshots.delete(snapshot)
    gone(cinder.group_snapshots, snapshot)
    cinder.groups.update(group, remove_volumes=volume.id)
    available(cinder.groups, group)
    cinder.groups.delete(group)
    gone(cinder.groups, group)
    drop_volume(cinder, volume)
    cinder.group_types.delete(kind)


@check("messages", "read and deleted")
def _(cinder):
    kind = cinder.volume_types.create("cinder-impossible")
    kind.set_keys({"vendor_name": "nobody"})
    volume = settled(cinder.volumes, cinder.volumes.create(1, volume_type="cinder-impossible"))
    holds(volume, status="error")
    [message] = cinder.messages.list(search_opts={"resource_uuid": volume.id})
    holds(cinder.messages.get(message.id), resource_type="VOLUME", message_level="ERROR")
    cinder.messages.delete(message.id)
    refuses(exceptions.NotFound, cinder.messages.get, message.id, code=404)
    drop_volume(cinder, volume)
    cinder.volume_types.delete(kind)


@check("backups", "full, incremental, restored, exported, deleted")
def _(cinder):
    volume = make_volume(cinder)
    full = available(cinder.backups, cinder.backups.create(volume.id, name="full"))
    later = available(cinder.backups, cinder.backups.create(volume.id, name="later", incremental=True))
    holds(later, is_incremental=True, volume_id=volume.id, size=1)
    holds(cinder.backups.get(full.id), has_dependent_backups=False)
    record = cinder.backups.export_record(full.id)
    assert record["backup_service"] and record["backup_url"], record
    restored = cinder.restores.restore(later.id, name="restored")
    copy = available(cinder.volumes, cinder.volumes.get(restored.volume_id))
    holds(copy, name="restored")
    available(cinder.backups, later)
    from_backup = make_volume(cinder, 2, backup_id=full.id)
    holds(from_backup, size=2)
    available(cinder.backups, full)
    for backup in (full, later):
        cinder.backups.delete(backup)
        gone(cinder.backups, backup)
    for made in (copy, from_backup, volume):
        drop_volume(cinder, made)


def connect():
    cloud = openstack.connect()
    return client.Client("3.71", session=cloud.session, service_type="block-storage")


main(connect)
