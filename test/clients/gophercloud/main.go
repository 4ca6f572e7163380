// A program on gophercloud's block storage packages, which Terraform and Kubernetes use. `list AREA...` prints the names of
// its checks as JSON, `run AREA...` runs them and reports each as one line of JSON. It connects without authentication to
// QUARRY_ENDPOINT, or as the OS_* variables say.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/noauth"
)

const microversion = "3.71"

// Only ends what hangs.
const checkTimeout = 60 * time.Second

type check struct {
	area, name string
	run        func(ctx context.Context, api *gophercloud.ServiceClient)
}

var checks []check

func register(area, name string, run func(ctx context.Context, api *gophercloud.ServiceClient)) {
	checks = append(checks, check{area, name, run})
}

// failure is what a check panics with: the checks are straight lines, and main turns it into their result.
type failure struct{ reason string }

func failf(format string, arguments ...any) {
	panic(failure{fmt.Sprintf(format, arguments...)})
}

func must[T any](value T, err error) T {
	if err != nil {
		failf("%v", err)
	}
	return value
}

func done(err error) {
	if err != nil {
		failf("%v", err)
	}
}

func equal[T comparable](what string, found, wanted T) {
	if found != wanted {
		failf("%s is %v, not %v", what, found, wanted)
	}
}

func refused(what string, err error, code int) {
	if err == nil {
		failf("%s was not refused", what)
	}
	if !gophercloud.ResponseCodeIs(err, code) {
		failf("%s was refused with %v, not %d", what, err, code)
	}
}

// until asks again until it is told that it is so; a status that says it never will be ends it.
func until(ctx context.Context, what string, isSo func() (bool, error)) {
	for {
		so, err := isSo()
		done(err)
		if so {
			return
		}
		select {
		case <-ctx.Done():
			failf("%s did not come about in time", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func connect(ctx context.Context) (*gophercloud.ServiceClient, error) {
	if endpoint := os.Getenv("QUARRY_ENDPOINT"); endpoint != "" {
		provider, err := noauth.NewClient(gophercloud.AuthOptions{Username: "someone", TenantName: os.Getenv("QUARRY_PROJECT")})
		if err != nil {
			return nil, err
		}
		return noauth.NewBlockStorageNoAuthV3(provider, noauth.EndpointOpts{CinderEndpoint: endpoint})
	}
	options, err := openstack.AuthOptionsFromEnv()
	if err != nil {
		return nil, err
	}
	provider, err := openstack.AuthenticatedClient(ctx, options)
	if err != nil {
		return nil, err
	}
	return openstack.NewBlockStorageV3(provider, gophercloud.EndpointOpts{Region: os.Getenv("OS_REGION_NAME")})
}

func attempt(one check, api *gophercloud.ServiceClient) (reason *string) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	defer func() {
		if caught := recover(); caught != nil {
			text := fmt.Sprint(caught)
			if expected, is := caught.(failure); is {
				text = expected.reason
			}
			reason = &text
		}
	}()
	one.run(ctx, api)
	return nil
}

func main() {
	verb, areas := os.Args[1], os.Args[2:]
	chosen := slices.DeleteFunc(slices.Clone(checks), func(one check) bool { return !slices.Contains(areas, one.area) })
	output := json.NewEncoder(os.Stdout)
	if verb == "list" {
		names := []string{}
		for _, one := range chosen {
			names = append(names, one.area+": "+one.name)
		}
		_ = output.Encode(names)
		return
	}
	api, err := connect(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	api.Microversion = microversion
	for _, one := range chosen {
		_ = output.Encode(map[string]any{"name": one.area + ": " + one.name, "reason": attempt(one, api)})
	}
}
