//! `vifctl`: asks the daemon over its Unix socket, and shows the answer to a person or a program.
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | answered |
//! | 1 | nothing matches what was asked for |
//! | 2 | the command line is wrong |
//! | 3 | the daemon is not there |
//! | 4 | the daemon could not answer |

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Serialize, de::DeserializeOwned};

use self::client::{Client, ClientError};
use crate::{
    config::DEFAULT_SOCKET,
    http::host::{Answer, Who},
    inventory::MatchedBy,
};

mod client;
mod process;
mod show;

/// Tells which device carries each virtual interface of each instance on this hypervisor.
#[derive(Debug, Parser)]
#[command(name = "vifctl", version, propagate_version = true)]
pub struct Arguments {
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to write the answer
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs: everything that is known
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every virtual interface of every instance, with the device that carries it
    List,
    /// Everything about one instance
    Show {
        /// Its UUID, libvirt name or integer id
        instance: String,
    },
    /// Whose a thing is: everything that it matches
    Who {
        /// A device name, MAC address, ifindex, VIF id, IP or PCI address, vhost-user socket, Open vSwitch port, PID,
        /// or an instance's UUID or name
        thing: String,
    },
    /// Whether what the daemon knows is being kept current
    Status,
}

/// Runs one command.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let Arguments { socket, output, command } = arguments;
    let result = Client::new(socket).and_then(|client| command.run(&client, output));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("vifctl: {}", crate::source::chain(&error));
            if let Some(hint) = error.hint() {
                eprintln!("vifctl: {hint}");
            }
            ExitCode::from(match error {
                ClientError::NotThere { .. } | ClientError::NotAllowed { .. } => 3,
                ClientError::NotFound(_) => 1,
                _ => 4,
            })
        }
    }
}

impl Command {
    /// Says whether there was anything to show.
    fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        match self {
            Self::List => answer(client, "/host/v1/instances", output, show::list),
            Self::Show { instance } => {
                let path = format!("/host/v1/instances/{}", client::encode(instance));
                answer(client, &path, output, show::instance)
            }
            Self::Who { thing } => {
                let answer = who(client, thing)?;
                let text = output.text(&answer, |answer| show::who(answer, thing))?;
                write(&text).map(|()| !answer.body.matches.is_empty())
            }
            Self::Status => answer(client, "/host/v1/sync", output, show::status),
        }
    }
}

/// Everything that `thing` matches. What a process is only this end of the socket can tell: the daemon asks nobody.
fn who(client: &Client, thing: &str) -> Result<Answer<Who>, ClientError> {
    let ask = |thing: &str| client.get::<Answer<Who>>(&format!("/host/v1/who?thing={}", client::encode(thing)));
    let mut answer = ask(thing)?;
    if let Some(instance) = thing.parse().ok().and_then(process::instance_of) {
        let by_process = ask(&instance)?.body.matches.into_iter().map(|mut found| {
            found.found.matched_by = vec![MatchedBy::Process];
            found
        });
        answer.body.matches.extend(by_process);
    }
    Ok(answer)
}

/// Asks and writes the answer.
fn answer<T: DeserializeOwned + Serialize>(
    client: &Client,
    path: &str,
    output: Output,
    table: impl FnOnce(&Answer<T>) -> String,
) -> Result<bool, ClientError> {
    write(&output.text(&client.get(path)?, table)?).map(|()| true)
}

impl Output {
    fn text<T: Serialize>(
        self,
        answer: &Answer<T>,
        table: impl FnOnce(&Answer<T>) -> String,
    ) -> Result<String, ClientError> {
        match self {
            Self::Table => Ok(table(answer)),
            Self::Json => Ok(serde_json::to_string_pretty(answer).map_err(ClientError::Malformed)? + "\n"),
        }
    }
}

fn write(text: &str) -> Result<(), ClientError> {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Write(error)),
        _ => Ok(()),
    }
}
