//! The entry point of the server's image: removes the variables that the dynamic loader, the C library or ONNX
//! Runtime obey from its environment, and replaces itself with the server. `scripts/images` links it statically, so
//! that no loader obeys those variables before it runs. It has no dependencies, so linking takes a second.

#[allow(unreachable_pub)]
#[path = "../../contract/src/environment.rs"]
mod environment;

use environment::is_loader_variable;
use std::{env, os::unix::process::CommandExt as _, process, process::Command};

/// The server's program in the image.
const SERVER: &str = "/usr/bin/modelservice-server";
/// The exit code of shells if a program cannot be started.
const CANNOT_START: i32 = 126;

fn main() {
    let mut server = Command::new(SERVER);
    server.args(env::args_os().skip(1));
    for (name, _) in env::vars_os() {
        if is_loader_variable(&name.to_string_lossy()) {
            server.env_remove(name);
        }
    }
    // Returns only if it fails.
    let error = server.exec();
    eprintln!("cannot start {SERVER}: {error}");
    process::exit(CANNOT_START);
}
