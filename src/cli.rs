//! `vifctl`: asks the daemon over its Unix socket, and shows the answer to a person or a program. Where there is none, it
//! collects the answer by itself (`private`).
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | answered |
//! | 1 | nothing matches what was asked for |
//! | 2 | the command line is wrong |
//! | 3 | the daemon is not there, and nothing was to be collected without it |
//! | 4 | the daemon could not answer |
//! | 10 | `doctor`: there are warnings |
//! | 11 | `doctor`: there are errors |

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::{
    bug_report::BugReport,
    client::{Client, ClientError, Whom},
    doctor::Doctor,
    history::Past,
    list::List,
    output::Output,
    path::Path,
    show::Show,
    status::Status,
    top::Top,
    watch::Watch,
    who::Who,
};

mod bug_report;
mod change;
mod client;
mod complete;
mod doctor;
mod history;
mod list;
mod output;
mod path;
mod private;
mod process;
mod show;
mod status;
mod table;
mod time;
mod top;
mod watch;
mod who;
mod words;

/// Tells which device carries each virtual interface of each instance on this hypervisor.
#[derive(Debug, Parser)]
#[command(name = "vifctl", version, propagate_version = true)]
pub struct Arguments {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every virtual interface of every instance, with the device that carries it
    List(List),
    /// Everything about one instance
    Show(Show),
    /// Whose a thing is: everything that it matches
    Who(Who),
    /// Which way the frames of an instance or a VIF take on this host, hop by hop, and where it is broken
    Path(Path),
    /// Which interfaces are busy: rates, drops and errors, live
    Top(Top),
    /// Every change as it is seen, until you have seen enough
    Watch(Watch),
    /// What is not as it should be, with the evidence and what to do
    ///
    /// Exit status: 0 nothing is wrong, 10 there are warnings, 11 there are errors.
    Doctor(Doctor),
    /// Who had a thing at a moment, or what became of it: from the flight recorder
    History(Past),
    /// Whether what the daemon knows is being kept current
    Status(Status),
    /// An archive of what is known and logged on this host, without secrets, for whoever is to help
    BugReport(BugReport),
}

/// Runs one command.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let Arguments { whom, output, command } = arguments;
    let result = Client::new(whom).and_then(|client| command.run(&client, output));
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vifctl: {}", crate::source::chain(&error));
            if let Some(hint) = error.hint() {
                eprintln!("vifctl: {hint}");
            }
            ExitCode::from(match error {
                ClientError::NotThere { .. } | ClientError::NotAllowed { .. } | ClientError::Hung { .. } => 3,
                ClientError::NotFound(_) => 1,
                ClientError::NoSuchFormat | ClientError::NoTerminal => 2,
                _ => 4,
            })
        }
    }
}

impl Command {
    /// Gives the exit status.
    fn run(&self, client: &Client, output: Output) -> Result<u8, ClientError> {
        let found_anything = match self {
            Self::List(list) => list.run(client, output),
            Self::Show(show) => show.run(client, output),
            Self::Who(who) => who.run(client, output),
            Self::Path(path) => path.run(client, output),
            Self::Top(top) => top.run(client, output),
            Self::History(past) => past.run(client, output),
            Self::Watch(watch) => watch.run(client, output),
            Self::Doctor(doctor) => return doctor.run(client, output),
            Self::Status(status) => status.run(client, output),
            Self::BugReport(report) => report.run(client, output),
        };
        Ok(if found_anything? { 0 } else { 1 })
    }
}
