//! The command line `vifctl`; its commands are in the library's `cli`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    vifd::cli::main(vifd::cli::Arguments::parse())
}
