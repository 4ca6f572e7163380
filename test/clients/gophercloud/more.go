package main

import (
	"context"
	"net/http"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/backups"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/qos"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/transfers"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"
)

// A project that nobody is in.
const project = "d00d00d00d00d00d00d00d00d00d00d5"

func backupIs(ctx context.Context, api *gophercloud.ServiceClient, id, status string) *backups.Backup {
	var found *backups.Backup
	until(ctx, "backup "+id+" "+status, func() (bool, error) {
		var err error
		found, err = backups.Get(ctx, api, id).Extract()
		if err == nil && found.Status == "error" {
			failf("backup %s is in error: %s", id, found.FailReason)
		}
		return err == nil && found.Status == status, err
	})
	return found
}

func dropBackup(ctx context.Context, api *gophercloud.ServiceClient, id string) {
	done(backups.Delete(ctx, api, id).ExtractErr())
	until(ctx, "backup "+id+" gone", func() (bool, error) {
		_, err := backups.Get(ctx, api, id).Extract()
		if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
}

func init() {
	register("types", "types, extra specs, access and encryption", func(ctx context.Context, api *gophercloud.ServiceClient) {
		private := false
		made := must(volumetypes.Create(ctx, api, volumetypes.CreateOpts{
			Name: "go-type", Description: "d", IsPublic: &private, ExtraSpecs: map[string]string{"tier": "gold"},
		}).Extract())
		equal("tier", made.ExtraSpecs["tier"], "gold")
		more := volumetypes.ExtraSpecsOpts{"more": "1"}
		equal("more", must(volumetypes.CreateExtraSpecs(ctx, api, made.ID, more).Extract())["more"], "1")
		changed := volumetypes.ExtraSpecsOpts{"more": "2"}
		equal("more", must(volumetypes.UpdateExtraSpec(ctx, api, made.ID, changed).Extract())["more"], "2")
		equal("more", must(volumetypes.GetExtraSpec(ctx, api, made.ID, "more").Extract())["more"], "2")
		done(volumetypes.DeleteExtraSpec(ctx, api, made.ID, "more").ExtractErr())
		equal("specs", len(must(volumetypes.ListExtraSpecs(ctx, api, made.ID).Extract())), 1)
		done(volumetypes.AddAccess(ctx, api, made.ID, volumetypes.AddAccessOpts{Project: project}).ExtractErr())
		accesses := must(volumetypes.ExtractAccesses(must(volumetypes.ListAccesses(api, made.ID).AllPages(ctx))))
		equal("accesses", len(accesses), 1)
		equal("project", accesses[0].ProjectID, project)
		done(volumetypes.RemoveAccess(ctx, api, made.ID, volumetypes.RemoveAccessOpts{Project: project}).ExtractErr())
		sealed := must(volumetypes.CreateEncryption(ctx, api, made.ID, volumetypes.CreateEncryptionOpts{
			KeySize: 256, Provider: "luks", ControlLocation: "front-end", Cipher: "aes-xts-plain64",
		}).Extract())
		equal("provider", must(volumetypes.GetEncryption(ctx, api, made.ID).Extract()).Provider, "luks")
		done(volumetypes.DeleteEncryption(ctx, api, made.ID, sealed.EncryptionID).ExtractErr())
		name := "go-renamed"
		equal("name", must(volumetypes.Update(ctx, api, made.ID, volumetypes.UpdateOpts{Name: &name}).Extract()).Name, name)
		pages := must(volumetypes.List(api, volumetypes.ListOpts{IsPublic: volumetypes.VisibilityPrivate}).AllPages(ctx))
		equal("private types", len(must(volumetypes.ExtractVolumeTypes(pages))), 1)
		done(volumetypes.Delete(ctx, api, made.ID).ExtractErr())
	})

	register("retype", "a volume changes its type", func(ctx context.Context, api *gophercloud.ServiceClient) {
		made := must(volumetypes.Create(ctx, api, volumetypes.CreateOpts{Name: "go-target"}).Extract())
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		change := volumes.ChangeTypeOpts{NewType: "go-target", MigrationPolicy: volumes.MigrationPolicyNever}
		done(volumes.ChangeType(ctx, api, volume.ID, change).ExtractErr())
		until(ctx, "the type", func() (bool, error) {
			found, err := volumes.Get(ctx, api, volume.ID).Extract()
			return err == nil && found.VolumeType == "go-target" && found.Status == "available", err
		})
		dropVolume(ctx, api, volume.ID)
		done(volumetypes.Delete(ctx, api, made.ID).ExtractErr())
	})

	register("types", "QoS specs", func(ctx context.Context, api *gophercloud.ServiceClient) {
		made := must(qos.Create(ctx, api, qos.CreateOpts{
			Name: "go-qos", Consumer: qos.ConsumerFront, Specs: map[string]string{"total_iops_sec": "100"},
		}).Extract())
		equal("iops", made.Specs["total_iops_sec"], "100")
		update := qos.UpdateOpts{Consumer: qos.ConsumerBack, Specs: map[string]string{"read_iops_sec": "50"}}
		must(qos.Update(ctx, api, made.ID, update).Extract())
		done(qos.DeleteKeys(ctx, api, made.ID, qos.DeleteKeysOpts{"total_iops_sec"}).ExtractErr())
		found := must(qos.Get(ctx, api, made.ID).Extract())
		equal("consumer", found.Consumer, "back-end")
		equal("specs", len(found.Specs), 1)
		kind := must(volumetypes.Create(ctx, api, volumetypes.CreateOpts{Name: "go-bound"}).Extract())
		done(qos.Associate(ctx, api, made.ID, qos.AssociateOpts{VolumeTypeID: kind.ID}).ExtractErr())
		bound := must(qos.ExtractAssociations(must(qos.ListAssociations(api, made.ID).AllPages(ctx))))
		equal("associations", len(bound), 1)
		equal("association", bound[0].Name, "go-bound")
		done(qos.Disassociate(ctx, api, made.ID, qos.DisassociateOpts{VolumeTypeID: kind.ID}).ExtractErr())
		done(qos.Associate(ctx, api, made.ID, qos.AssociateOpts{VolumeTypeID: kind.ID}).ExtractErr())
		done(qos.DisassociateAll(ctx, api, made.ID).ExtractErr())
		rows := must(qos.ExtractQoS(must(qos.List(api, qos.ListOpts{}).AllPages(ctx))))
		equal("rows", len(rows), 1)
		done(qos.Delete(ctx, api, made.ID, qos.DeleteOpts{}).ExtractErr())
		done(volumetypes.Delete(ctx, api, kind.ID).ExtractErr())
	})

	register("quotas", "limits of a project, its usage, the defaults", func(ctx context.Context, api *gophercloud.ServiceClient) {
		five := 5
		equal("volumes", must(quotasets.Update(ctx, api, project, quotasets.UpdateOpts{Volumes: &five}).Extract()).Volumes, 5)
		equal("volumes", must(quotasets.Get(ctx, api, project).Extract()).Volumes, 5)
		usage := must(quotasets.GetUsage(ctx, api, project).Extract())
		equal("limit", usage.Volumes.Limit, 5)
		equal("in use", usage.Volumes.InUse, 0)
		done(quotasets.Delete(ctx, api, project).ExtractErr())
		defaults := must(quotasets.GetDefaults(ctx, api, project).Extract())
		equal("volumes", must(quotasets.Get(ctx, api, project).Extract()).Volumes, defaults.Volumes)
	})

	register("attachments", "from reserved to attached to deleted", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		made := must(attachments.Create(ctx, api, attachments.CreateOpts{VolumeUUID: volume.ID, InstanceUUID: server}).Extract())
		equal("status", made.Status, "reserved")
		connector := map[string]any{"host": "compute", "ip": "127.0.0.1", "initiator": "iqn.2026-01.org.example:1"}
		connected := must(attachments.Update(ctx, api, made.ID, attachments.UpdateOpts{Connector: connector}).Extract())
		if connected.ConnectionInfo["driver_volume_type"] != "nbd" {
			failf("connection_info is %v", connected.ConnectionInfo)
		}
		done(attachments.Complete(ctx, api, made.ID).ExtractErr())
		found := must(attachments.Get(ctx, api, made.ID).Extract())
		equal("status", found.Status, "attached")
		equal("mode", found.AttachMode, "rw")
		volumeIs(ctx, api, volume.ID, "in-use")
		pages := must(attachments.List(api, attachments.ListOpts{VolumeID: volume.ID}).AllPages(ctx))
		equal("rows", len(must(attachments.ExtractAttachments(pages))), 1)
		done(attachments.Delete(ctx, api, made.ID).ExtractErr())
		volumeIs(ctx, api, volume.ID, "available")
		dropVolume(ctx, api, volume.ID)
	})

	register("attachments", "connection information by the older actions", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		done(volumes.Reserve(ctx, api, volume.ID).ExtractErr())
		multipath := false
		options := volumes.InitializeConnectionOpts{IP: "127.0.0.1", Host: "compute", Initiator: "iqn.2026-01.org.example:1", Multipath: &multipath, Platform: "x86", OSType: "linux2"}
		info := must(volumes.InitializeConnection(ctx, api, volume.ID, options).Extract())
		if info["driver_volume_type"] != "nbd" {
			failf("connection_info is %v", info)
		}
		terminate := volumes.TerminateConnectionOpts(options)
		done(volumes.TerminateConnection(ctx, api, volume.ID, terminate).ExtractErr())
		done(volumes.Unreserve(ctx, api, volume.ID).ExtractErr())
		volumeIs(ctx, api, volume.ID, "available")
		dropVolume(ctx, api, volume.ID)
	})

	register("transfers", "offer, accept and withdraw", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		made := must(transfers.Create(ctx, api, transfers.CreateOpts{VolumeID: volume.ID, Name: "go"}).Extract())
		volumeIs(ctx, api, volume.ID, "awaiting-transfer")
		pages := must(transfers.List(api, transfers.ListOpts{}).AllPages(ctx))
		equal("rows", len(must(transfers.ExtractTransfers(pages))), 1)
		_, err := transfers.Accept(ctx, api, made.ID, transfers.AcceptOpts{AuthKey: "wrong"}).Extract()
		refused("a wrong key", err, http.StatusBadRequest)
		must(transfers.Accept(ctx, api, made.ID, transfers.AcceptOpts{AuthKey: made.AuthKey}).Extract())
		volumeIs(ctx, api, volume.ID, "available")
		again := must(transfers.Create(ctx, api, transfers.CreateOpts{VolumeID: volume.ID}).Extract())
		done(transfers.Delete(ctx, api, again.ID).ExtractErr())
		volumeIs(ctx, api, volume.ID, "available")
		dropVolume(ctx, api, volume.ID)
	})

	register("backups", "full, incremental, restored, exported, deleted", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		full := must(backups.Create(ctx, api, backups.CreateOpts{VolumeID: volume.ID, Name: "full"}).Extract())
		backupIs(ctx, api, full.ID, "available")
		later := must(backups.Create(ctx, api, backups.CreateOpts{VolumeID: volume.ID, Incremental: true}).Extract())
		equal("incremental", backupIs(ctx, api, later.ID, "available").IsIncremental, true)
		equal("dependents", must(backups.Get(ctx, api, full.ID).Extract()).HasDependentBackups, false)
		name := "renamed"
		// It sends the fields without the "backup" around them that the API wants.
		_, err := backups.Update(ctx, api, later.ID, backups.UpdateOpts{Name: &name}).Extract()
		refused("an update without its key", err, http.StatusBadRequest)
		pages := must(backups.ListDetail(api, backups.ListDetailOpts{Sort: "name:asc", Limit: 1}).AllPages(ctx))
		equal("rows", len(must(backups.ExtractBackups(pages))), 2)
		record := must(backups.Export(ctx, api, full.ID).Extract())
		if record.BackupService == "" || len(record.BackupURL) == 0 {
			failf("the record is %+v", record)
		}
		restored := must(backups.RestoreFromBackup(ctx, api, later.ID, backups.RestoreOpts{Name: "back"}).Extract())
		equal("name", volumeIs(ctx, api, restored.VolumeID, "available").Name, "back")
		backupIs(ctx, api, later.ID, "available")
		copied := makeVolume(ctx, api, volumes.CreateOpts{Size: 2, BackupID: full.ID})
		backupIs(ctx, api, full.ID, "available")
		dropBackup(ctx, api, full.ID)
		dropBackup(ctx, api, later.ID)
		for _, id := range []string{restored.VolumeID, copied.ID, volume.ID} {
			dropVolume(ctx, api, id)
		}
	})
}
