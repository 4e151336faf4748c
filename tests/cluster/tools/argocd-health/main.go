// Command argocd-health runs a health script as Argo CD does: the Lua file named by the first argument
// gets the object, given as JSON on the standard input, as the global `obj`, and returns a table with
// `status` and `message`, which is printed as JSON.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
)

// toLua turns decoded JSON into Lua values; like Argo CD, lists become tables counted from 1.
func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	}
	return lua.LNil
}

// newState opens only the libraries that Argo CD opens, so that a script cannot rely on more.
func newState() (*lua.LState, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
		{lua.StringLibName, lua.OpenString},
	} {
		err := state.CallByParam(lua.P{Fn: state.NewFunction(library.open), Protect: true}, lua.LString(library.name))
		if err != nil {
			return nil, err
		}
	}
	return state, nil
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: argocd-health SCRIPT.lua <OBJECT.json")
	}
	var object map[string]any
	if err := json.NewDecoder(os.Stdin).Decode(&object); err != nil {
		return fmt.Errorf("the standard input must hold one object as JSON: %w", err)
	}
	state, err := newState()
	if err != nil {
		return err
	}
	defer state.Close()
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoFile(os.Args[1]); err != nil {
		return err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return fmt.Errorf("%s must return a table with status and message", os.Args[1])
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"status":  lua.LVAsString(health.RawGetString("status")),
		"message": lua.LVAsString(health.RawGetString("message")),
	})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "argocd-health:", err)
		os.Exit(1)
	}
}
