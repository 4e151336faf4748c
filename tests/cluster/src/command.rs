//! Runs other programs: a failure becomes an error that names the command and quotes its output.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Variables that would send requests for a cluster's addresses to somebody's proxy.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// A command that ignores the proxies set for the outside world.
pub(crate) fn direct(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in PROXIES {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    check(&shown, output)
}

/// Runs a command to its end with `input` on standard input, and returns its standard output.
pub(crate) fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::thread::scope(|scope| {
        // Written from another thread: otherwise both sides would block if the program writes before it has read
        // everything.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        check(&shown, child.wait_with_output()?)
    })
}

/// Runs `ip`, `mount` and the like from one line; no argument may contain a space.
pub(crate) fn line(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("empty command")?;
    output(Command::new(program).args(words))
}

fn check(shown: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!(
            "`{shown}` failed ({}): {}{}",
            output.status,
            stderr.trim(),
            stdout.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
