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
    config::{Config, Layers, LogFilter, LogFormat, default_file},
    daemon::{Daemon, Settings},
    handed::Handed,
    telemetry,
};

/// `EX_CONFIG` of sysexits.h. The unit tells systemd not to try again.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.default_config {
        print!("{}", default_file());
        return ExitCode::SUCCESS;
    }
    let loaded = Layers::new(arguments.config.clone(), arguments.overrides())
        .and_then(|layers| Ok((layers.load()?, layers)))
        .map_err(anyhow::Error::from);
    if arguments.private {
        return private(loaded.map(|(loaded, _)| loaded.config), arguments.log);
    }
    let (loaded, layers) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("vifd: {error:#}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    if arguments.check_config {
        println!("{}: the configuration is good", loaded.path.display());
        return ExitCode::SUCCESS;
    }
    if arguments.print_config {
        print!("{}", loaded.effective());
        return ExitCode::SUCCESS;
    }
    let log = telemetry::start(&loaded.config.log, loaded.config.log_format);
    run(&loaded.config.clone(), async |handed| Daemon::bind(Settings { layers, loaded, log }, handed).await)
}

/// Serves the one client that has started this process.
fn private(config: anyhow::Result<Config>, log: Option<LogFilter>) -> ExitCode {
    // On a host in trouble an answer by the defaults is better than none.
    let config = config.unwrap_or_else(|error| {
        eprintln!("vifd: {error:#}; going on with the defaults");
        Config::default()
    });
    // What a private daemon has to say, it says in its answers.
    let _ = telemetry::start(&log.unwrap_or_else(LogFilter::errors), LogFormat::Text);
    run(&config.clone(), async |_| Daemon::private(config, stdin()?))
}

fn run(config: &Config, open: impl AsyncFnOnce(Handed) -> anyhow::Result<Daemon>) -> ! {
    let status = match try_run(config, open) {
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

fn try_run(config: &Config, open: impl AsyncFnOnce(Handed) -> anyhow::Result<Daemon>) -> anyhow::Result<()> {
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
        open(handed).await?.run(shutdown).await
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
