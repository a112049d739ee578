//! The daemon `vifd`; see the library's documentation for how it works.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};
use tracing::error;
use vifd::{
    arguments::Arguments,
    config::{Config, DEFAULT_PATH, LogFilter},
    daemon::Daemon,
    handed::Handed,
    telemetry,
};

/// `EX_CONFIG` of sysexits.h. The unit tells systemd not to try again.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) if arguments.private => {
            // On a host in trouble an answer by the defaults is better than none.
            eprintln!("vifd: {:#}; going on with the defaults", anyhow::Error::from(error));
            Config::default()
        }
        Err(error) => {
            eprintln!("vifd: {:#}", anyhow::Error::from(error));
            return ExitCode::from(EX_CONFIG);
        }
    };
    if arguments.check_config {
        let path = arguments.config.unwrap_or_else(|| DEFAULT_PATH.into());
        println!("{}: the configuration is good", path.display());
        return ExitCode::SUCCESS;
    }
    // What a private daemon has to say, it says in its answers.
    let filter = if arguments.private { &LogFilter::errors() } else { &config.log };
    telemetry::start(arguments.log.as_ref().unwrap_or(filter).filter());
    let status = match run(config, arguments.private) {
        Ok(()) => 0,
        Err(error) => {
            error!("{error:#}");
            1
        }
    };
    // Everything is closed and written by now. To return would run the exit handlers of libvirt's many libraries while
    // its event loop, and perhaps a call that hangs, still use them on threads that nobody can end.
    signal_hook::low_level::exit(status)
}

fn run(config: Config, private: bool) -> anyhow::Result<()> {
    // Before there are threads.
    let handed = Handed::take().context("could not use what systemd has handed over")?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads.get())
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("could not watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("could not watch for SIGINT")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let daemon = if private { Daemon::private(config, stdin()?)? } else { Daemon::bind(config, handed).await? };
        daemon.run(shutdown).await
    });
    // A libvirt call that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

/// The socket that standard input is.
fn stdin() -> anyhow::Result<UnixStream> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?;
    Ok(UnixStream::from(stdin))
}
