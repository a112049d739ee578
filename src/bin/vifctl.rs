//! The command line `vifctl`; its commands are in the library's `cli`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use vifd::cli::Arguments;

fn main() -> ExitCode {
    // A shell asks what to offer, or for the script that makes it ask.
    CompleteEnv::with_factory(Arguments::command).completer("vifctl").complete();
    vifd::cli::main(Arguments::parse())
}
