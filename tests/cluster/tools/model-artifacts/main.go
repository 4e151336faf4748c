// Command model-artifacts pushes a folder to a registry without TLS, in the forms in which tools push models:
//
//	model-artifacts oras      REGISTRY/REPOSITORY:TAG FOLDER     as `oras push` does: a layer for each file and folder
//	model-artifacts modelpack REGISTRY/REPOSITORY:TAG FOLDER     a raw layer for each file (CNCF ModelPack)
//	model-artifacts modelpack-tar REGISTRY/REPOSITORY:TAG FOLDER  a layer for each file, as tar or gzipped tar in turns
//	model-artifacts image     REGISTRY/REPOSITORY:TAG FOLDER     as an image with one layer that is not compressed
//	model-artifacts index     REGISTRY/REPOSITORY:TAG OS/ARCHITECTURE=TAG...
//
// It prints the digest of what it pushed. A name and a password are in the variable REGISTRY_LOGIN (NAME:PASSWORD).
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// The same files give the same digest.
const created = "2000-01-01T00:00:00Z"

// ModelPack's names: https://github.com/modelpack/model-spec
const (
	modelType     = "application/vnd.cncf.model.manifest.v1+json"
	modelConfig   = "application/vnd.cncf.model.config.v1+json"
	modelFilePath = "org.cncf.model.filepath"
)

func repository(reference string) (*remote.Repository, error) {
	target, err := remote.NewRepository(reference)
	if err != nil {
		return nil, err
	}
	target.PlainHTTP = true
	if name, password, ok := strings.Cut(os.Getenv("REGISTRY_LOGIN"), ":"); ok {
		credential := auth.Credential{Username: name, Password: password}
		target.Client = &auth.Client{Credential: auth.StaticCredential(target.Reference.Host(), credential)}
	}
	return target, nil
}

func pack(ctx context.Context, store content.Storage, artifactType string, config *ocispec.Descriptor, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	return oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{
		ConfigDescriptor:    config,
		Layers:              layers,
		ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: created},
	})
}

// The default media type of `oras push` is the one of an image's layer, for files that are no archives too.
func pushOras(ctx context.Context, target *remote.Repository, folder string) (ocispec.Descriptor, error) {
	store, err := file.New(folder)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer store.Close()
	store.TarReproducible = true
	entries, err := os.ReadDir(folder)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var layers []ocispec.Descriptor
	for _, entry := range entries {
		mediaType := ocispec.MediaTypeImageLayer
		if entry.IsDir() {
			mediaType = ocispec.MediaTypeImageLayerGzip
		}
		layer, err := store.Add(ctx, entry.Name(), mediaType, "")
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		layers = append(layers, layer)
	}
	manifest, err := pack(ctx, store, "application/vnd.example.model", nil, layers)
	if err != nil {
		return manifest, err
	}
	return push(ctx, store, manifest, target)
}

func push(ctx context.Context, store oras.Target, manifest ocispec.Descriptor, target *remote.Repository) (ocispec.Descriptor, error) {
	tag := target.Reference.Reference
	if err := store.Tag(ctx, manifest, tag); err != nil {
		return manifest, err
	}
	return oras.Copy(ctx, store, tag, target, tag, oras.DefaultCopyOptions)
}

func pushModelPack(ctx context.Context, target *remote.Repository, folder string, archived bool) (ocispec.Descriptor, error) {
	store := memory.New()
	names, err := files(folder)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var layers []ocispec.Descriptor
	for number, name := range names {
		body, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		format := "raw"
		if archived {
			format = []string{"tar", "tar+gzip"}[number%2]
			if body, err = archive(name, body, number%2 == 1); err != nil {
				return ocispec.Descriptor{}, err
			}
		}
		layer, err := oras.PushBytes(ctx, store, "application/vnd.cncf.model."+kind(name)+".v1."+format, body)
		if err != nil {
			return layer, err
		}
		layer.Annotations = map[string]string{modelFilePath: name}
		layers = append(layers, layer)
	}
	body, err := json.Marshal(map[string]any{
		"descriptor": map[string]any{"name": "model"},
		"config":     map[string]any{"format": "onnx"},
		"modelfs":    map[string]any{"type": "layers", "diffIds": []string{}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := oras.PushBytes(ctx, store, modelConfig, body)
	if err != nil {
		return config, err
	}
	manifest, err := pack(ctx, store, modelType, &config, layers)
	if err != nil {
		return manifest, err
	}
	return push(ctx, store, manifest, target)
}

func files(folder string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	sort.Strings(names)
	return names, err
}

func kind(name string) string {
	switch filepath.Ext(name) {
	case ".yaml", ".json", ".txt":
		return "weight.config"
	case ".md":
		return "doc"
	}
	return "weight"
}

func write(writer *tar.Writer, name string, body []byte) error {
	if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
		return err
	}
	_, err := writer.Write(body)
	return err
}

func archive(name string, body []byte, compressed bool) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	if err := write(writer, name, body); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil || !compressed {
		return buffer.Bytes(), err
	}
	var small bytes.Buffer
	zipper := gzip.NewWriter(&small)
	if _, err := zipper.Write(buffer.Bytes()); err != nil {
		return nil, err
	}
	err := zipper.Close()
	return small.Bytes(), err
}

// Builders compress the layers of images that they push; registries and the specification know others.
func pushImage(ctx context.Context, target *remote.Repository, folder string) (ocispec.Descriptor, error) {
	store := memory.New()
	names, err := files(folder)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, name := range names {
		body, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := write(writer, name, body); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if err := writer.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	layer, err := oras.PushBytes(ctx, store, ocispec.MediaTypeImageLayer, buffer.Bytes())
	if err != nil {
		return layer, err
	}
	body, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": "amd64", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{layer.Digest}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, err := oras.PushBytes(ctx, store, ocispec.MediaTypeImageConfig, body)
	if err != nil {
		return config, err
	}
	manifest, err := pack(ctx, store, "", &config, []ocispec.Descriptor{layer})
	if err != nil {
		return manifest, err
	}
	return push(ctx, store, manifest, target)
}

func pushIndex(ctx context.Context, target *remote.Repository, platforms []string) (ocispec.Descriptor, error) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, argument := range platforms {
		platform, tag, _ := strings.Cut(argument, "=")
		manifest, err := target.Resolve(ctx, tag)
		if err != nil {
			return manifest, err
		}
		system, architecture, _ := strings.Cut(platform, "/")
		manifest.Platform = &ocispec.Platform{OS: system, Architecture: architecture}
		index.Manifests = append(index.Manifests, manifest)
	}
	body, err := json.Marshal(index)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return oras.TagBytes(ctx, target, index.MediaType, body, target.Reference.Reference)
}

func run(arguments []string) (ocispec.Descriptor, error) {
	if len(arguments) < 3 {
		return ocispec.Descriptor{}, errors.New("usage: model-artifacts oras|modelpack|modelpack-tar|image|index REFERENCE FOLDER|PLATFORM=TAG...")
	}
	ctx := context.Background()
	target, err := repository(arguments[1])
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	switch arguments[0] {
	case "oras":
		return pushOras(ctx, target, arguments[2])
	case "modelpack":
		return pushModelPack(ctx, target, arguments[2], false)
	case "modelpack-tar":
		return pushModelPack(ctx, target, arguments[2], true)
	case "image":
		return pushImage(ctx, target, arguments[2])
	case "index":
		return pushIndex(ctx, target, arguments[2:])
	}
	return ocispec.Descriptor{}, fmt.Errorf("unknown form %q", arguments[0])
}

func main() {
	pushed, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "model-artifacts:", err)
		os.Exit(1)
	}
	fmt.Println(pushed.Digest)
}
