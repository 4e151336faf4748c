// Command device-plugin offers a made-up extended resource to the kubelet, so that scheduling on
// devices can be tried on a machine that has none.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	count int
	// A device is unhealthy while a file of its name is in this folder.
	unhealthy string
}

// devices are all devices, each with its present health.
func (p *plugin) devices() []*api.Device {
	devices := []*api.Device{}
	for i := range p.count {
		device := &api.Device{ID: fmt.Sprintf("device-%d", i), Health: api.Healthy}
		if _, err := os.Stat(filepath.Join(p.unhealthy, device.ID)); p.unhealthy != "" && err == nil {
			device.Health = api.Unhealthy
		}
		devices = append(devices, device)
	}
	return devices
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch sends the devices at once, and again whenever the health of one has changed.
func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var sent []*api.Device
	for {
		devices := p.devices()
		if sent == nil || !slices.EqualFunc(sent, devices, sameHealth) {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
				return err
			}
			sent = devices
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func sameHealth(a, b *api.Device) bool { return a.Health == b.Health }

// Allocate tells the container which devices it got by an environment variable.
func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return response, nil
}

func main() {
	resource := flag.String("resource", "example.com/tpu", "the extended resource's name")
	count := flag.Int("count", 2, "how many devices this node has")
	dir := flag.String("dir", api.DevicePluginPath, "the kubelet's device-plug-in folder")
	unhealthy := flag.String("unhealthy", "", "a folder: a device is unhealthy while a file of its name is in it")
	flag.Parse()

	p := &plugin{count: *count, unhealthy: *unhealthy}
	endpoint := strings.ReplaceAll(*resource, "/", "-") + ".sock"
	var registered time.Time
	for ; ; time.Sleep(500 * time.Millisecond) {
		// A kubelet that starts wipes the folder and makes a new socket: serve and register again.
		kubelet, err := os.Stat(filepath.Join(*dir, "kubelet.sock"))
		if err != nil || kubelet.ModTime().Equal(registered) {
			continue
		}
		if err := p.serve(filepath.Join(*dir, endpoint)); err != nil {
			log.Fatalf("cannot serve %s: %v", endpoint, err)
		}
		if err := register(*dir, endpoint, *resource); err != nil {
			log.Printf("registering %s: %v; trying again", *resource, err)
			continue
		}
		registered = kubelet.ModTime()
		log.Printf("registered %d of %s", *count, *resource)
	}
}

func (p *plugin) serve(socket string) error {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	go func() { log.Printf("served %s: %v", socket, server.Serve(listener)) }()
	return nil
}

func register(dir, endpoint, resource string) error {
	connection, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: resource,
	})
	return err
}
