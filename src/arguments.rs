//! The command line of `vifd`; that of `vifctl` is in [`cli`](crate::cli).

use std::path::PathBuf;

use clap::Parser;

use crate::config::{Assignment, LogFilter};

/// Knows which device carries each virtual interface of each instance on this hypervisor, and serves that over HTTP.
#[derive(Debug, Parser)]
#[command(name = "vifd", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/vifd/vifd.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a key of the configuration, such as `http.connections=1024`, whatever the file and the environment
    /// (VIFD_HTTP__CONNECTIONS) say
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Assignment>,
    /// What to log, such as `debug` or `vifd::source=debug,info`: the configuration's `log`
    #[arg(long, value_name = "DIRECTIVES")]
    pub log: Option<LogFilter>,
    /// Read the configuration, say whether it is good, and exit
    #[arg(long, group = "instead")]
    pub check_config: bool,
    /// Print every key of the configuration that is in force and where it was set, and exit
    #[arg(long, group = "instead")]
    pub print_config: bool,
    /// Print a configuration file with every key, what it means and its default, and exit
    #[arg(long, group = "instead")]
    pub default_config: bool,
    /// Serve the one client at the other end of standard input, keep nothing, and end with it: for `vifctl`
    #[arg(long, hide = true, group = "instead")]
    pub private: bool,
}

impl Arguments {
    /// What overrides the configuration file and the environment, in rising precedence.
    #[must_use]
    pub fn overrides(&self) -> Vec<Assignment> {
        self.set.iter().cloned().chain(self.log.as_ref().map(Assignment::log)).collect()
    }
}
