//! The command line of `vifd`; that of `vifctl` is in [`cli`](crate::cli).

use std::path::PathBuf;

use clap::Parser;

use crate::config::LogFilter;

/// Knows which device carries each virtual interface of each instance on this hypervisor, and serves that over HTTP.
#[derive(Debug, Parser)]
#[command(name = "vifd", version)]
pub struct Arguments {
    /// Configuration file [default: /etc/vifd/vifd.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read the configuration, say whether it is good, and exit
    #[arg(long)]
    pub check_config: bool,
    /// What to log, such as `debug` or `vifd::source=debug,info` [default: the configuration's `log`]
    #[arg(long, value_name = "DIRECTIVES")]
    pub log: Option<LogFilter>,
    /// Serve the one client at the other end of standard input, keep nothing, and end with it: for `vifctl`
    #[arg(long, hide = true)]
    pub private: bool,
}
