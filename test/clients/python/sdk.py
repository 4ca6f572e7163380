"""openstacksdk as programs use it: its block storage proxy, and the cloud layer with its waiting. Where to connect, and as
whom, stands in the usual OS_* variables."""

import openstack
from openstack import exceptions

from checks import check, equal, holds, main, refuses

WAIT = {"interval": 0.05, "wait": 45}
SERVER = "5e12e12e-0000-4000-8000-00000000abcd"
OTHER_SERVER = "5e12e12e-0000-4000-8000-00000000abce"


def available(cloud, item):
    # What is at hand may be from before the work that is waited for.
    item = item.fetch(cloud.block_storage)
    return cloud.block_storage.wait_for_status(item, "available", ["error"], **WAIT)


def gone(cloud, item):
    return cloud.block_storage.wait_for_delete(item, **WAIT)


def make_volume(cloud, **fields):
    return available(cloud, cloud.block_storage.create_volume(**{"size": 1, **fields}))


def drop_volume(cloud, volume):
    cloud.block_storage.delete_volume(volume)
    gone(cloud, volume)


@check("volumes", "the service is found, and speaks versions up to 3.71")
def _(cloud):
    data = cloud.block_storage.get_endpoint_data()
    equal(data.max_microversion, (3, 71))
    equal(data.min_microversion, (3, 0))


@check("volumes", "create, show, update and delete")
def _(cloud):
    api = cloud.block_storage
    made = api.create_volume(size=1, name="sdk", description="text", metadata={"a": "1"}, availability_zone="nova")
    holds(made, status="creating", name="sdk", size=1, metadata={"a": "1"}, volume_type="__DEFAULT__")
    volume = available(cloud, made)
    holds(volume, description="text", is_bootable=False, is_encrypted=False, is_multiattach=False)
    holds(volume, attachments=[], snapshot_id=None, source_volume_id=None, availability_zone="nova")
    assert volume.project_id and volume.user_id and volume.volume_type_id, volume.to_dict()
    holds(api.update_volume(volume, name="renamed", description="other"), name="renamed", description="other")
    equal(api.find_volume("renamed").id, volume.id)
    equal(api.find_volume("no-such-volume"), None)
    drop_volume(cloud, volume)
    refuses(exceptions.NotFoundException, api.get_volume, volume.id, code=404)


@check("volumes", "lists page through everything, the newest first, with filters")
def _(cloud):
    api = cloud.block_storage
    made = [make_volume(cloud, name=f"page-{number}", metadata={"group": "pages"}) for number in range(5)]
    equal([volume.name for volume in api.volumes(limit=2, name="page-3")], ["page-3"])
    equal([volume.id for volume in api.volumes(limit=2)], [volume.id for volume in reversed(made)])
    brief = [volume.id for volume in api.volumes(details=False, limit=1)]
    equal(brief, [volume.id for volume in reversed(made)])
    equal(list(api.volumes(status="error")), [])
    summary = api.summary(False)
    holds(summary, total_count=5, total_size=5, metadata={"group": ["pages"]})
    for volume in made:
        drop_volume(cloud, volume)


@check("volumes", "metadata is merged, read and deleted")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud, metadata={"keep": "1"})
    api.set_volume_metadata(volume, more="2", drop="3")
    equal(api.fetch_volume_metadata(volume).metadata, {"keep": "1", "more": "2", "drop": "3"})
    api.delete_volume_metadata(volume, keys=["drop"])
    equal(api.get_volume(volume.id).metadata, {"keep": "1", "more": "2"})
    api.delete_volume_metadata(volume)
    equal(api.get_volume(volume.id).metadata, {})
    drop_volume(cloud, volume)


@check("volumes", "actions: extend, bootable, read-only, image metadata, status")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud)
    api.extend_volume(volume, 3)
    holds(available(cloud, volume), size=3)
    refuses(exceptions.BadRequestException, api.extend_volume, volume, 2, code=400)
    api.set_volume_bootable_status(volume, True)
    api.set_volume_readonly(volume, True)
    found = api.get_volume(volume.id)
    holds(found, is_bootable=True)
    equal(found.metadata["readonly"], "True")
    api.set_volume_image_metadata(volume, os_type="linux", arch="x86")
    equal(api.get_volume(volume.id).volume_image_metadata, {"os_type": "linux", "arch": "x86"})
    api.delete_volume_image_metadata(volume, keys=["arch"])
    equal(api.get_volume(volume.id).volume_image_metadata, {"os_type": "linux"})
    api.reset_volume_status(volume, status="error")
    holds(api.get_volume(volume.id), status="error")
    drop_volume(cloud, volume)


@check("volumes", "reserve and unreserve, attach and detach by actions")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud)
    api.reserve_volume(volume)
    holds(api.get_volume(volume.id), status="attaching")
    api.unreserve_volume(volume)
    holds(api.get_volume(volume.id), status="available")
    api.attach_volume(volume, mountpoint="/dev/vdb", instance=SERVER)
    found = api.get_volume(volume.id)
    holds(found, status="in-use")
    attachment = found.attachments[0]
    equal((attachment["server_id"], attachment["device"]), (SERVER, "/dev/vdb"))
    equal((attachment["id"], attachment["volume_id"]), (volume.id, volume.id))
    api.begin_volume_detaching(volume)
    holds(api.get_volume(volume.id), status="detaching")
    api.abort_volume_detaching(volume)
    holds(api.get_volume(volume.id), status="in-use")
    api.detach_volume(volume, attachment["attachment_id"])
    holds(api.get_volume(volume.id), status="available", attachments=[])
    drop_volume(cloud, volume)


@check("volumes", "what is wrong is refused, and says why")
def _(cloud):
    api = cloud.block_storage
    bad = exceptions.BadRequestException
    refuses(bad, api.create_volume, size=-1, code=400)
    refuses(bad, api.create_volume, size="big", code=400)
    refuses(bad, api.create_volume, size=1, metadata={"k": "v" * 256}, code=400)
    refuses(bad, api.create_volume, name="no size", code=400)
    refuses(bad, api.create_volume, size=1, availability_zone="mars", code=400, says="mars")
    refuses(exceptions.NotFoundException, api.create_volume, size=1, volume_type="no-such-type", code=404)
    refuses(exceptions.NotFoundException, api.create_volume, size=1, snapshot_id=SERVER, code=404)
    refuses(exceptions.NotFoundException, api.delete_volume, SERVER, ignore_missing=False, code=404)


@check("snapshots", "create, show, update, list, revert and delete")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud, name="snapped")
    made = api.create_snapshot(volume_id=volume.id, name="snap", description="d", metadata={"a": "1"})
    snapshot = available(cloud, made)
    holds(snapshot, name="snap", description="d", size=1, volume_id=volume.id, metadata={"a": "1"})
    holds(api.update_snapshot(snapshot, name="other"), name="other")
    equal(api.find_snapshot("other").id, snapshot.id)
    equal([row.id for row in api.snapshots(volume_id=volume.id, status="available")], [snapshot.id])
    equal([row.id for row in api.snapshots(details=False, name="other")], [snapshot.id])
    api.set_snapshot_metadata(snapshot, b="2")
    equal(api.fetch_snapshot_metadata(snapshot).metadata, {"a": "1", "b": "2"})
    api.delete_snapshot_metadata(snapshot, keys=["a"])
    equal(api.get_snapshot(snapshot.id).metadata, {"b": "2"})
    api.revert_volume_to_snapshot(volume, snapshot)
    available(cloud, volume)
    copy = make_volume(cloud, size=2, snapshot_id=snapshot.id)
    holds(copy, snapshot_id=snapshot.id, size=2)
    refuses(exceptions.BadRequestException, api.delete_volume, volume, code=400, says="snapshot")
    api.reset_snapshot_status(snapshot, "error")
    holds(api.get_snapshot(snapshot.id), status="error")
    api.delete_snapshot(snapshot)
    gone(cloud, snapshot)
    drop_volume(cloud, copy)
    drop_volume(cloud, volume)


@check("snapshots", "cascade takes a volume's snapshots along")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud)
    snapshot = available(cloud, api.create_snapshot(volume_id=volume.id))
    api.delete_volume(volume, cascade=True)
    gone(cloud, volume)
    refuses(exceptions.NotFoundException, api.get_snapshot, snapshot.id, code=404)


@check("cloud", "the cloud layer makes, finds and deletes with waiting")
def _(cloud):
    volume = cloud.create_volume(1, name="cloudy", wait=True, timeout=45)
    holds(volume, status="available")
    equal(cloud.get_volume("cloudy").id, volume.id)
    assert cloud.volume_exists("cloudy")
    snapshot = cloud.create_volume_snapshot(volume.id, wait=True, timeout=45, name="cloudy-snapshot")
    equal([row.id for row in cloud.search_volume_snapshots("cloudy-snapshot")], [snapshot.id])
    assert cloud.delete_volume_snapshot("cloudy-snapshot", wait=True, timeout=45)
    holds(cloud.update_volume("cloudy", name="rainy"), name="rainy")
    cloud.set_volume_bootable("rainy", True)
    assert cloud.delete_volume("rainy", wait=True, timeout=45)
    assert not cloud.volume_exists("rainy")
    equal(cloud.delete_volume("rainy"), False)


@check("cloud", "limits count what is there")
def _(cloud):
    before = cloud.get_volume_limits().absolute
    volume = make_volume(cloud, size=2)
    after = cloud.get_volume_limits().absolute
    equal(after.total_volumes_used - before.total_volumes_used, 1)
    equal(after.total_gigabytes_used - before.total_gigabytes_used, 2)
    drop_volume(cloud, volume)
    equal(cloud.get_volume_limits().absolute.total_volumes_used, before.total_volumes_used)


@check("operator", "zones, services, pools, extensions and filters are listed")
def _(cloud):
    api = cloud.block_storage
    equal([(zone.name, zone.state["available"]) for zone in api.availability_zones()], [("nova", True)])
    binaries = {service.binary: service for service in api.services()}
    assert {"cinder-scheduler", "cinder-volume"} <= set(binaries), binaries
    holds(binaries["cinder-volume"], state="up", status="enabled")
    [pool] = list(api.backend_pools(detailed=True))
    assert pool.name.startswith(binaries["cinder-volume"].host + "#"), pool.name
    assert pool.capabilities["storage_protocol"] and pool.capabilities["vendor_name"], pool.capabilities
    assert all(extension.alias and extension.name for extension in api.extensions())
    resources = {row.resource: row.filters for row in api.resource_filters()}
    assert "name" in resources["volume"], resources


@check("services", "a service is disabled, enabled, frozen and thawed; capabilities are read")
def _(cloud):
    api = cloud.block_storage
    [service] = list(api.services(binary="cinder-volume"))
    api.disable_service(service, reason="maintenance")
    [found] = list(api.services(binary="cinder-volume"))
    holds(found, status="disabled", disabled_reason="maintenance")
    api.enable_service(service)
    [found] = list(api.services(binary="cinder-volume"))
    holds(found, status="enabled")
    api.freeze_service(service)
    api.thaw_service(service)
    capabilities = api.get_capabilities(service.host)
    assert capabilities.vendor_name and capabilities.storage_protocol, capabilities.to_dict()
    equal(list(api.clusters()), [])


@check("types", "types, their specs, access and encryption")
def _(cloud):
    api = cloud.block_storage
    made = api.create_type(name="sdk-type", description="d", is_public=False)
    holds(made, name="sdk-type", is_public=False)
    holds(api.update_type_extra_specs(made, tier="gold", other="x"), extra_specs={"tier": "gold", "other": "x"})
    api.delete_type_extra_specs(made, ["other"])
    equal(api.get_type(made.id).extra_specs, {"tier": "gold"})
    api.add_type_access(made, "d00d00d00d00d00d00d00d00d00d00d0")
    equal([row["project_id"] for row in api.get_type_access(made)], ["d00d00d00d00d00d00d00d00d00d00d0"])
    refuses(exceptions.ConflictException, api.add_type_access, made, "d00d00d00d00d00d00d00d00d00d00d0", code=409)
    api.remove_type_access(made, "d00d00d00d00d00d00d00d00d00d00d0")
    equal(list(api.get_type_access(made)), [])
    api.create_type_encryption(made, provider="luks", cipher="aes-xts-plain64", key_size=256, control_location="front-end")
    holds(api.get_type_encryption(made.id), provider="luks", cipher="aes-xts-plain64", key_size=256)
    api.delete_type_encryption(volume_type=made)
    holds(api.update_type(made, name="sdk-renamed"), name="sdk-renamed", is_public=False)
    equal(api.find_type("sdk-renamed").id, made.id)
    refuses(exceptions.ConflictException, api.create_type, name="sdk-renamed", code=409)
    # A spec without a scope would be asked of the backend.
    api.delete_type_extra_specs(made, ["tier"])
    volume = make_volume(cloud, volume_type="sdk-renamed")
    holds(volume, volume_type="sdk-renamed", volume_type_id=made.id)
    refuses(exceptions.BadRequestException, api.delete_type, made, ignore_missing=False, code=400)
    drop_volume(cloud, volume)
    api.delete_type(made)
    equal(api.find_type("sdk-renamed"), None)


@check("retype", "a volume changes its type")
def _(cloud):
    api = cloud.block_storage
    kind = api.create_type(name="sdk-target")
    volume = make_volume(cloud)
    api.retype_volume(volume, "sdk-target")
    holds(available(cloud, volume), volume_type="sdk-target", volume_type_id=kind.id)
    refuses(exceptions.BadRequestException, api.retype_volume, volume, "sdk-target", code=400)
    drop_volume(cloud, volume)
    api.delete_type(kind)


@check("types", "QoS specs are made, bound and taken away")
def _(cloud):
    api = cloud.block_storage
    made = api.create_qos_spec(name="sdk-qos", consumer="back-end", total_iops_sec="500")
    holds(made, name="sdk-qos", consumer="back-end", total_iops_sec="500")
    kind = api.create_type(name="sdk-bound")
    api.associate_qos_spec(made, kind.id)
    equal([row.id for row in api.qos_spec_associations(made)], [kind.id])
    api.disassociate_qos_spec(made, kind.id)
    equal(list(api.qos_spec_associations(made)), [])
    api.delete_qos_spec_metadata(made, ["total_iops_sec"])
    equal(api.get_qos_spec(made.id).specs, {})
    api.delete_qos_spec(made)
    api.delete_type(kind)


@check("types", "the default type of a project is set and unset")
def _(cloud):
    api = cloud.block_storage
    kind = api.create_type(name="sdk-default")
    project = "d00d00d00d00d00d00d00d00d00d00d1"
    api.set_default_type(project, "sdk-default")
    equal(api.show_default_type(project).volume_type_id, kind.id)
    assert project in [row.project_id for row in api.default_types()]
    api.unset_default_type(project)
    refuses(exceptions.NotFoundException, api.show_default_type, project, code=404)
    api.delete_type(kind)


@check("quotas", "limits are read, set, obeyed and put back")
def _(cloud):
    api = cloud.block_storage
    project = "d00d00d00d00d00d00d00d00d00d00d2"
    api.update_quota_set(project, volumes=7, gigabytes=70)
    holds(api.get_quota_set(project), volumes=7, gigabytes=70)
    usage = api.get_quota_set(project, usage=True)
    equal(usage.usage["volumes"], 0)
    api.revert_quota_set(project)
    equal(api.get_quota_set(project).volumes, api.get_quota_set_defaults(project).volumes)
    refuses(exceptions.BadRequestException, api.update_quota_set, project, volumes=-2, code=400)


@check("attachments", "reserve, connect, complete and end")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud)
    made = api.create_attachment(volume, connector={}, instance=SERVER)
    holds(made, status="reserved", instance=SERVER, volume_id=volume.id)
    holds(api.get_volume(volume.id), status="reserved")
    connector = {"host": "compute", "ip": "127.0.0.1", "initiator": "iqn.2026-01.org.example:1"}
    found = api.update_attachment(made, connector=connector)
    equal(found.connection_info["driver_volume_type"], "nbd")
    assert found.connection_info["name"], found.connection_info
    holds(api.get_volume(volume.id), status="attaching")
    api.complete_attachment(made)
    holds(api.get_attachment(made.id), status="attached", attach_mode="rw")
    holds(api.get_volume(volume.id), status="in-use")
    equal([row.id for row in api.attachments(volume_id=volume.id)], [made.id])
    refuses(exceptions.BadRequestException, api.create_attachment, volume, connector={}, instance=OTHER_SERVER, code=400)
    api.delete_attachment(made)
    refuses(exceptions.NotFoundException, api.get_attachment, made.id, code=404)
    holds(available(cloud, volume), attachments=[])
    drop_volume(cloud, volume)


@check("transfers", "offer, accept and withdraw")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud)
    made = api.create_transfer(volume_id=volume.id, name="offer")
    assert len(made.auth_key) == 16, made.auth_key
    equal(api.find_transfer("offer").id, made.id)
    holds(api.get_transfer(made.id), volume_id=volume.id, name="offer", auth_key=None)
    holds(api.get_volume(volume.id), status="awaiting-transfer")
    refuses(exceptions.BadRequestException, api.accept_transfer, made.id, "0" * 16, code=400)
    equal(api.accept_transfer(made.id, made.auth_key).volume_id, volume.id)
    holds(available(cloud, volume), status="available")
    other = api.create_transfer(volume_id=volume.id, name="again")
    api.delete_transfer(other)
    holds(api.get_volume(volume.id), status="available")
    drop_volume(cloud, volume)


@check("groups", "group types, groups and their snapshots")
def _(cloud):
    api = cloud.block_storage
    kind = api.create_group_type(name="sdk-groups", group_specs={})
    api.create_group_type_group_specs(kind, {"consistent_group_snapshot_enabled": "<is> True"})
    equal(api.get_group_type(kind.id).group_specs, {"consistent_group_snapshot_enabled": "<is> True"})
    default = api.find_type("__DEFAULT__")
    made = api.create_group(group_type=kind.id, volume_types=[default.id], name="sdk-group", description="d")
    group = available(cloud, made)
    volume = make_volume(cloud, group_id=group.id, volume_type="__DEFAULT__")
    holds(api.get_volume(volume.id), group_id=group.id)
    holds(api.update_group(group, name="renamed"), name="renamed")
    snapshot = available(cloud, api.create_group_snapshot(group_id=group.id, name="moment"))
    equal([row.id for row in api.group_snapshots()], [snapshot.id])
    refuses(exceptions.BadRequestException, api.delete_group, group, delete_volumes=True, code=400)
    api.delete_group_snapshot(snapshot)
    gone(cloud, snapshot)
    api.delete_group(group, delete_volumes=True)
    gone(cloud, group)
    refuses(exceptions.NotFoundException, api.get_volume, volume.id, code=404)
    api.delete_group_type(kind)


@check("messages", "a failure leaves one that can be read and deleted")
def _(cloud):
    api = cloud.block_storage
    # Of messages it does not know the version, so that a program has to name one.
    refuses(exceptions.NotFoundException, lambda: list(api.messages()), code=404)
    api.default_microversion = "3.71"
    kind = api.create_type(name="sdk-impossible")
    api.update_type_extra_specs(kind, vendor_name="nobody")
    volume = api.create_volume(size=1, volume_type="sdk-impossible")
    api.wait_for_status(volume, "error", [], **WAIT)
    [message] = [row for row in api.messages() if row.resource_uuid == volume.id]
    holds(message, message_level="ERROR", resource_type="VOLUME")
    assert message.user_message and message.request_id.startswith("req-"), message.to_dict()
    # It looks for one message below the key of many, so that of one it reads no more than the id it asked for.
    equal(api.get_message(message.id).id, message.id)
    api.delete_message(message)
    refuses(exceptions.NotFoundException, api.get_message, message.id, code=404)
    api.default_microversion = None
    drop_volume(cloud, volume)
    api.delete_type(kind)


@check("backups", "full and incremental, restored and deleted")
def _(cloud):
    api = cloud.block_storage
    volume = make_volume(cloud, name="sdk-backed")
    full = available(cloud, api.create_backup(volume_id=volume.id, name="sdk-full", metadata={"a": "1"}))
    holds(full, size=1, is_incremental=False, volume_id=volume.id, metadata={"a": "1"}, fail_reason=None)
    later = available(cloud, api.create_backup(volume_id=volume.id, name="sdk-later", is_incremental=True))
    holds(later, is_incremental=True)
    holds(api.get_backup(full.id), has_dependent_backups=False)
    equal([row.name for row in api.backups(volume_id=volume.id)], ["sdk-later", "sdk-full"])
    equal(api.find_backup("sdk-later").id, later.id)
    restored = api.restore_backup(later, name="sdk-restored")
    copy = api.get_volume(restored.volume_id)
    holds(available(cloud, copy), name="sdk-restored", size=1)
    available(cloud, later)
    for backup in (full, later):
        api.delete_backup(backup)
        gone(cloud, backup)
    drop_volume(cloud, copy)
    drop_volume(cloud, volume)


main(openstack.connect)
