package main

import (
	"context"
	"net/http"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/availabilityzones"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/limits"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/schedulerstats"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/services"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
)

const server = "5e12e12e-0000-4000-8000-0000000060f3"

func volumeIs(ctx context.Context, api *gophercloud.ServiceClient, id, status string) *volumes.Volume {
	var found *volumes.Volume
	until(ctx, "volume "+id+" "+status, func() (bool, error) {
		var err error
		found, err = volumes.Get(ctx, api, id).Extract()
		if err == nil && found.Status == "error" && status != "error" {
			failf("volume %s is in error", id)
		}
		return err == nil && found.Status == status, err
	})
	return found
}

func makeVolume(ctx context.Context, api *gophercloud.ServiceClient, options volumes.CreateOpts) *volumes.Volume {
	if options.Size == 0 {
		options.Size = 1
	}
	return volumeIs(ctx, api, must(volumes.Create(ctx, api, options, nil).Extract()).ID, "available")
}

func dropVolume(ctx context.Context, api *gophercloud.ServiceClient, id string) {
	done(volumes.Delete(ctx, api, id, volumes.DeleteOpts{}).ExtractErr())
	volumeGone(ctx, api, id)
}

func volumeGone(ctx context.Context, api *gophercloud.ServiceClient, id string) {
	until(ctx, "volume "+id+" gone", func() (bool, error) {
		_, err := volumes.Get(ctx, api, id).Extract()
		if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
}

func snapshotIs(ctx context.Context, api *gophercloud.ServiceClient, id, status string) *snapshots.Snapshot {
	var found *snapshots.Snapshot
	until(ctx, "snapshot "+id+" "+status, func() (bool, error) {
		var err error
		found, err = snapshots.Get(ctx, api, id).Extract()
		return err == nil && found.Status == status, err
	})
	return found
}

func dropSnapshot(ctx context.Context, api *gophercloud.ServiceClient, id string) {
	done(snapshots.Delete(ctx, api, id).ExtractErr())
	until(ctx, "snapshot "+id+" gone", func() (bool, error) {
		_, err := snapshots.Get(ctx, api, id).Extract()
		if gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
}

func init() {
	register("volumes", "create with everything, get, update, delete", func(ctx context.Context, api *gophercloud.ServiceClient) {
		hints := volumes.SchedulerHintOpts{DifferentHost: []string{server}}
		made := must(volumes.Create(ctx, api, volumes.CreateOpts{
			Size: 1, Name: "go", Description: "text", AvailabilityZone: "nova", Metadata: map[string]string{"a": "1"},
		}, hints).Extract())
		equal("status", made.Status, "creating")
		found := volumeIs(ctx, api, made.ID, "available")
		equal("name", found.Name, "go")
		equal("description", found.Description, "text")
		equal("zone", found.AvailabilityZone, "nova")
		equal("metadata", found.Metadata["a"], "1")
		equal("type", found.VolumeType, "__DEFAULT__")
		equal("bootable", found.Bootable, "false")
		equal("attachments", len(found.Attachments), 0)
		if found.CreatedAt.IsZero() {
			failf("created_at was not understood")
		}
		name, description := "renamed", ""
		updated := must(volumes.Update(ctx, api, made.ID, volumes.UpdateOpts{
			Name: &name, Description: &description, Metadata: map[string]string{"b": "2"},
		}).Extract())
		equal("name", updated.Name, "renamed")
		found = must(volumes.Get(ctx, api, made.ID).Extract())
		equal("description", found.Description, "")
		equal("metadata", len(found.Metadata), 1)
		equal("metadata", found.Metadata["b"], "2")
		dropVolume(ctx, api, made.ID)
	})

	register("volumes", "lists page, filter and sort", func(ctx context.Context, api *gophercloud.ServiceClient) {
		var ids []string
		for _, name := range []string{"b", "a", "c"} {
			made := makeVolume(ctx, api, volumes.CreateOpts{Name: name, Metadata: map[string]string{"list": name}})
			ids = append(ids, made.ID)
		}
		names := ""
		pages := must(volumes.List(api, volumes.ListOpts{Sort: "name:asc", Limit: 1}).AllPages(ctx))
		for _, row := range must(volumes.ExtractVolumes(pages)) {
			names += row.Name
		}
		equal("names", names, "abc")
		pages = must(volumes.List(api, volumes.ListOpts{Metadata: map[string]string{"list": "c"}}).AllPages(ctx))
		rows := must(volumes.ExtractVolumes(pages))
		equal("rows", len(rows), 1)
		equal("name", rows[0].Name, "c")
		bootable := true
		pages = must(volumes.List(api, volumes.ListOpts{Bootable: &bootable}).AllPages(ctx))
		equal("bootable rows", len(must(volumes.ExtractVolumes(pages))), 0)
		for _, id := range ids {
			dropVolume(ctx, api, id)
		}
	})

	register("volumes", "extend, bootable, image metadata, reset and force delete", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		done(volumes.ExtendSize(ctx, api, volume.ID, volumes.ExtendSizeOpts{NewSize: 2}).ExtractErr())
		equal("size", volumeIs(ctx, api, volume.ID, "available").Size, 2)
		smaller := volumes.ExtendSize(ctx, api, volume.ID, volumes.ExtendSizeOpts{NewSize: 1}).ExtractErr()
		refused("a smaller size", smaller, http.StatusBadRequest)
		done(volumes.SetBootable(ctx, api, volume.ID, volumes.BootableOpts{Bootable: true}).ExtractErr())
		image := volumes.ImageMetadataOpts{Metadata: map[string]string{"os": "linux"}}
		done(volumes.SetImageMetadata(ctx, api, volume.ID, image).ExtractErr())
		found := must(volumes.Get(ctx, api, volume.ID).Extract())
		equal("bootable", found.Bootable, "true")
		equal("image metadata", found.VolumeImageMetadata["os"], "linux")
		_, err := volumes.UploadImage(ctx, api, volume.ID, volumes.UploadImageOpts{ImageName: "x"}).Extract()
		refused("an upload of an image", err, http.StatusBadRequest)
		done(volumes.ResetStatus(ctx, api, volume.ID, volumes.ResetStatusOpts{Status: "error"}).ExtractErr())
		volumeIs(ctx, api, volume.ID, "error")
		done(volumes.ForceDelete(ctx, api, volume.ID).ExtractErr())
		volumeGone(ctx, api, volume.ID)
	})

	register("volumes", "reserve, attach, begin detaching and detach", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		done(volumes.Reserve(ctx, api, volume.ID).ExtractErr())
		volumeIs(ctx, api, volume.ID, "attaching")
		done(volumes.Unreserve(ctx, api, volume.ID).ExtractErr())
		volumeIs(ctx, api, volume.ID, "available")
		attach := volumes.AttachOpts{MountPoint: "/mnt", Mode: "rw", InstanceUUID: server}
		done(volumes.Attach(ctx, api, volume.ID, attach).ExtractErr())
		found := volumeIs(ctx, api, volume.ID, "in-use")
		equal("attachments", len(found.Attachments), 1)
		equal("server", found.Attachments[0].ServerID, server)
		done(volumes.BeginDetaching(ctx, api, volume.ID).ExtractErr())
		detach := volumes.DetachOpts{AttachmentID: found.Attachments[0].AttachmentID}
		done(volumes.Detach(ctx, api, volume.ID, detach).ExtractErr())
		equal("attachments", len(volumeIs(ctx, api, volume.ID, "available").Attachments), 0)
		dropVolume(ctx, api, volume.ID)
	})

	register("volumes", "what is not there is not found, and what is wrong is refused", func(ctx context.Context, api *gophercloud.ServiceClient) {
		_, err := volumes.Get(ctx, api, server).Extract()
		refused("a volume that is not there", err, http.StatusNotFound)
		_, err = volumes.Create(ctx, api, volumes.CreateOpts{Size: 1, VolumeType: "no-such-type"}, nil).Extract()
		refused("a type that is not there", err, http.StatusNotFound)
		_, err = volumes.Create(ctx, api, volumes.CreateOpts{Size: -1}, nil).Extract()
		refused("a negative size", err, http.StatusBadRequest)
	})

	register("snapshots", "create, list, update, clone, delete", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		made := must(snapshots.Create(ctx, api, snapshots.CreateOpts{
			VolumeID: volume.ID, Name: "go", Description: "d", Metadata: map[string]string{"a": "1"},
		}).Extract())
		found := snapshotIs(ctx, api, made.ID, "available")
		equal("size", found.Size, 1)
		equal("progress", found.Progress, "100%")
		equal("metadata", found.Metadata["a"], "1")
		name := "renamed"
		equal("name", must(snapshots.Update(ctx, api, made.ID, snapshots.UpdateOpts{Name: &name}).Extract()).Name, "renamed")
		metadata := snapshots.UpdateMetadataOpts{Metadata: map[string]any{"b": "2"}}
		must(snapshots.UpdateMetadata(ctx, api, made.ID, metadata).ExtractMetadata())
		equal("metadata", len(must(snapshots.Get(ctx, api, made.ID).Extract()).Metadata), 1)
		pages := must(snapshots.ListDetail(api, snapshots.ListOpts{VolumeID: volume.ID}).AllPages(ctx))
		equal("rows", len(must(snapshots.ExtractSnapshots(pages))), 1)
		copied := makeVolume(ctx, api, volumes.CreateOpts{Size: 2, SnapshotID: made.ID})
		equal("source", copied.SnapshotID, made.ID)
		held := volumes.Delete(ctx, api, volume.ID, volumes.DeleteOpts{}).ExtractErr()
		refused("deleting a volume with snapshots", held, http.StatusBadRequest)
		done(snapshots.ResetStatus(ctx, api, made.ID, snapshots.ResetStatusOpts{Status: "error"}).ExtractErr())
		dropSnapshot(ctx, api, made.ID)
		dropVolume(ctx, api, copied.ID)
		dropVolume(ctx, api, volume.ID)
	})

	register("snapshots", "a volume goes with its snapshots by cascade", func(ctx context.Context, api *gophercloud.ServiceClient) {
		volume := makeVolume(ctx, api, volumes.CreateOpts{})
		made := must(snapshots.Create(ctx, api, snapshots.CreateOpts{VolumeID: volume.ID}).Extract())
		snapshotIs(ctx, api, made.ID, "available")
		done(volumes.Delete(ctx, api, volume.ID, volumes.DeleteOpts{Cascade: true}).ExtractErr())
		volumeGone(ctx, api, volume.ID)
		_, err := snapshots.Get(ctx, api, made.ID).Extract()
		refused("a snapshot of a volume that is gone", err, http.StatusNotFound)
	})

	register("operator", "zones, services, pools and limits", func(ctx context.Context, api *gophercloud.ServiceClient) {
		zones := must(availabilityzones.ExtractAvailabilityZones(must(availabilityzones.List(api).AllPages(ctx))))
		equal("zones", len(zones), 1)
		equal("zone", zones[0].ZoneName, "nova")
		equal("available", zones[0].ZoneState.Available, true)
		pages := must(services.List(api, services.ListOpts{Binary: "cinder-volume"}).AllPages(ctx))
		found := must(services.ExtractServices(pages))
		equal("services", len(found), 1)
		equal("state", found[0].State, "up")
		pages = must(schedulerstats.List(api, schedulerstats.ListOpts{Detail: true}).AllPages(ctx))
		pools := must(schedulerstats.ExtractStoragePools(pages))
		equal("pools", len(pools), 1)
		if pools[0].Capabilities.TotalCapacityGB <= 0 || pools[0].Capabilities.VendorName == "" {
			failf("capabilities are %+v", pools[0].Capabilities)
		}
		before := must(limits.Get(ctx, api).Extract()).Absolute
		volume := makeVolume(ctx, api, volumes.CreateOpts{Size: 3})
		after := must(limits.Get(ctx, api).Extract()).Absolute
		equal("volumes used", after.TotalVolumesUsed-before.TotalVolumesUsed, 1)
		equal("gigabytes used", after.TotalGigabytesUsed-before.TotalGigabytesUsed, 3)
		dropVolume(ctx, api, volume.ID)
	})
}
