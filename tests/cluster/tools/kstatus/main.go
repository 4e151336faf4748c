// Command kstatus reads one object as JSON on its standard input and prints what kstatus, the library
// that Flux and kpt judge readiness with, makes of it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func run() error {
	object := &unstructured.Unstructured{}
	if err := json.NewDecoder(os.Stdin).Decode(object); err != nil {
		return fmt.Errorf("the standard input must hold one object as JSON: %w", err)
	}
	result, err := status.Compute(object)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"status": result.Status.String(), "message": result.Message,
	})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}
