//! `modelservice-server`: see `modelservice_server::app`.

use clap::Parser;
use modelservice_contract::is_loader_variable;
use modelservice_server::app::{Arguments, Command, LogFormat, run};
use modelservice_server::engine::NO_TELEMETRY;
use modelservice_server::process::exit;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

fn main() -> ! {
    let arguments = Arguments::parse();
    settle_environment();
    log(&arguments);
    let code = match run(&arguments) {
        Ok(code) => code,
        Err(fatal) => {
            tracing::error!(reason = ?fatal.reason, "{}", fatal.message);
            if let Err(error) = fatal.write_to(&arguments.termination_log) {
                tracing::warn!("cannot write {}: {error}", arguments.termination_log.display());
            }
            fatal.reason.code()
        }
    };
    exit::now(code.into())
}

/// ONNX Runtime is configured only by the configuration. With these variables, it would also apply settings stored in
/// a model.
#[allow(unsafe_code)]
fn settle_environment() {
    for (name, _) in std::env::vars_os() {
        if is_loader_variable(&name.to_string_lossy()) {
            // SAFETY: no other thread has been started.
            unsafe { std::env::remove_var(name) };
        }
    }
    // SAFETY: as above.
    unsafe { std::env::set_var(NO_TELEMETRY, "1") };
}

fn log(arguments: &Arguments) {
    // Its result is the only output; all that is worth knowing is in it.
    if matches!(arguments.command, Some(Command::Check(_))) {
        return;
    }
    let filter = EnvFilter::new(&arguments.log_level);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal());
    let for_people = std::io::stdout().is_terminal();
    let by_default = if for_people {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    match arguments.log_format.unwrap_or(by_default) {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Text => subscriber.init(),
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
}
