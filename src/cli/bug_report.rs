//! `vifctl bug-report`: an archive of everything that is needed to understand what is wrong on this host, without
//! secrets, and on request without names.
//!
//! It is gathered as text and JSON documents first; then each passes [`secrets`] and [`names`] before it is written.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use self::{
    names::{Pseudonyms, Replacer},
    secrets::Secrets,
};
use super::{
    client::{Client, ClientError},
    output::{Output, Page, Readable},
    words::plain,
};
use crate::{config::DEFAULT_PATH, source::chain};

mod names;
mod secrets;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct BugReport {
    /// The archive [default: vifd-bug-report-TIME.tar.gz, here]
    file: Option<PathBuf>,
    /// Replace the names of instances, projects, users and hosts, their ids but for UUIDs, and IP addresses by pseudonyms
    #[arg(long, visible_alias = "redact-names")]
    anonymous: bool,
    /// Replace MAC addresses, too
    #[arg(long, requires = "anonymous")]
    redact_macs: bool,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// What the daemon is asked for, and what that is.
const ANSWERS: [(&str, &str, &str); 5] = [
    ("sync.json", "/host/v1/sync", "the state of each source"),
    ("instances.json", "/host/v1/instances", "every instance, with its interfaces and their devices"),
    ("devices.json", "/host/v1/devices", "every link of the host"),
    ("counters.json", "/host/v1/counters", "the links' counters"),
    ("findings.json", "/host/v1/findings", "what vifd finds wrong"),
];
/// How many of the last changes of each instance are told.
const CHANGES: usize = 100;
/// What other programs are asked for.
const COMMANDS: [(&str, &[&str], &str); 4] = [
    (
        "log.txt",
        &["journalctl", "-u", "vifd", "-n", "2000", "--no-pager", "--no-hostname", "-o", "short-iso-precise"],
        "the last lines of the daemon's log",
    ),
    (
        "unit.txt",
        &[
            "systemctl",
            "show",
            "vifd.service",
            "-p",
            "ActiveState,SubState,StatusText,Result,NRestarts,ExecMainStatus,ActiveEnterTimestamp,MemoryCurrent",
        ],
        "the state of the service",
    ),
    ("links.txt", &["ip", "-details", "link"], "the links, as iproute2 tells them"),
    ("switch.txt", &["ovs-vsctl", "--timeout=5", "show"], "the bridges of Open vSwitch, as it tells them"),
];
/// Whose versions are told.
const VERSIONS: [&[&str]; 6] = [
    &["libvirtd", "--version"],
    &["virtqemud", "--version"],
    &["qemu-system-x86_64", "--version"],
    &["ovs-vswitchd", "--version"],
    &["systemctl", "--version"],
    &["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "vifd", "libvirt*", "qemu-system*", "openvswitch*"],
];
/// How long another program may take: on a broken host some never answer.
const PATIENCE: &str = "10";

/// What was written.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    anonymous: bool,
    contents: Vec<Member>,
    missing: Vec<Missing>,
}

/// A file in the archive.
#[derive(Serialize)]
struct Member {
    name: &'static str,
    bytes: usize,
    what: &'static str,
}

/// What could not be collected.
#[derive(Serialize)]
struct Missing {
    what: &'static str,
    why: String,
}

/// What is known of the host, before anything is taken out of it.
#[derive(Default)]
struct Report {
    answers: Vec<(&'static str, &'static str, Value)>,
    texts: Vec<(&'static str, &'static str, String)>,
    config: Value,
    missing: Vec<Missing>,
}

impl BugReport {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let time = Timestamp::now();
        let default = || PathBuf::from(format!("vifd-bug-report-{}.tar.gz", time.strftime("%Y%m%dT%H%M%SZ")));
        let file = self.file.clone().unwrap_or_else(default);
        // Before the work, as nothing of it would be kept.
        if file.exists() && !self.force {
            return Err(write_error(&file, io::ErrorKind::AlreadyExists.into()));
        }
        let report = Report::collect(client);
        let (members, missing) = report.documents(self, client, time);
        write(&file, self.force, time, &members).map_err(|error| write_error(&file, error))?;
        let contents = members.iter().map(|(name, what, text)| Member { name, bytes: text.len(), what }).collect();
        output.write(&Written { file, anonymous: self.anonymous, contents, missing })?;
        Ok(true)
    }
}

fn write_error(path: &Path, source: io::Error) -> ClientError {
    ClientError::WriteFile { path: path.to_owned(), source }
}

impl Report {
    fn collect(client: &Client) -> Self {
        let mut report = Self::default();
        let mut absent = None;
        for (name, path, what) in ANSWERS {
            // Who does not answer once will not the next time.
            let answer = match &absent {
                None => ask(client, path).map_err(|error| {
                    let why = chain(&error);
                    if !matches!(error, ClientError::NotFound(_) | ClientError::Refused(_) | ClientError::Malformed(_))
                    {
                        absent = Some(why.clone());
                    }
                    why
                }),
                Some(why) => Err(why.clone()),
            };
            match answer {
                Ok(answer) => report.answers.push((name, what, answer)),
                Err(why) => report.missing.push(Missing { what, why }),
            }
        }
        let what = "what happened to each instance, as far as it was recorded";
        match absent.map_or_else(|| report.history(client), Err) {
            Ok(history) => report.answers.push(("history.json", what, history)),
            Err(why) => report.missing.push(Missing { what, why }),
        }
        report.collect_config(client.config().unwrap_or(Path::new(DEFAULT_PATH)));
        let openapi = ask(client, "/openapi.json").ok();
        report.texts.push(("versions.txt", "versions of everything that takes part", versions(openapi.as_ref())));
        for (name, command, what) in COMMANDS {
            match run(command) {
                Ok(text) => report.texts.push((name, what, text)),
                Err(why) => report.missing.push(Missing { what, why }),
            }
        }
        report
    }

    /// The flight recorder is asked about one thing at a time.
    fn history(&self, client: &Client) -> Result<Value, String> {
        let instances = self.answers.iter().find_map(|(.., answer)| answer["instances"].as_array());
        let uuids = instances.into_iter().flatten().filter_map(|instance| instance["uuid"].as_str());
        let history = uuids.map(|uuid| {
            let path = format!("/host/v1/history?thing={uuid}&limit={CHANGES}");
            ask(client, &path).map(|answer| (uuid.to_owned(), answer)).map_err(|error| chain(&error))
        });
        history.collect::<Result<_, _>>().map(Value::Object)
    }

    fn collect_config(&mut self, path: &Path) {
        let what = "the configuration";
        let parsed =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())).and_then(|text| {
                // The error would show the line, and what is in it.
                let error = |error: toml::de::Error| {
                    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                    format!("{}:{}: it is no TOML", path.display(), before.matches('\n').count() + 1)
                };
                toml::from_str(&text).map_err(error)
            });
        match parsed {
            Ok(config) => self.config = config,
            Err(why) => self.missing.push(Missing { what, why }),
        }
    }

    /// The members of the archive, without what is not to be told.
    fn documents(mut self, how: &BugReport, client: &Client, time: Timestamp) -> (Vec<Document>, Vec<Missing>) {
        let secrets = Secrets::new(&self.config);
        self.answers.iter_mut().for_each(|(.., answer)| secrets.strip_all(answer));
        self.texts.iter_mut().for_each(|(.., text)| *text = secrets.strip(text));
        self.missing.iter_mut().for_each(|missing| missing.why = secrets.strip(&missing.why));
        secrets.strip_all(&mut self.config);
        let mut names = how.anonymous.then(|| self.pseudonyms(how.redact_macs));
        if let Some(names) = &mut names {
            self.answers.iter_mut().for_each(|(.., answer)| names.replace_all(answer));
            self.texts.iter_mut().for_each(|(.., text)| *text = names.replace(text));
            self.missing.iter_mut().for_each(|missing| missing.why = names.replace(&missing.why));
            names.replace_all(&mut self.config);
        }
        let mut members: Vec<Document> = Vec::new();
        if !self.config.is_null() {
            let text = toml::to_string(&self.config).unwrap_or_else(|error| format!("# {error}\n"));
            members.push(("vifd.toml", "the configuration, without its comments", text));
        }
        let answers = self.answers.into_iter();
        members.extend(answers.map(|(name, what, answer)| (name, what, format!("{answer:#}\n"))));
        members.extend(self.texts);
        let introduction = introduction(how, client, time, &members, &self.missing);
        members.insert(0, ("README.txt", "what this is", introduction));
        (members, self.missing)
    }

    fn pseudonyms(&self, macs: bool) -> Replacer {
        let mut names = Pseudonyms::new(macs);
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        for name in [host.trim(), host.trim().split('.').next().unwrap_or_default()] {
            if !name.is_empty() && name != "localhost" {
                names.learn("host", name);
            }
        }
        self.answers.iter().for_each(|(.., answer)| names.learn_from(answer));
        self.texts.iter().for_each(|(.., text)| names.learn_from_log(text));
        names.learn_from(&self.config);
        names.replacer()
    }
}

fn ask(client: &Client, path: &str) -> Result<Value, ClientError> {
    serde_json::from_slice(&client.get_json(path)?).map_err(ClientError::Malformed)
}

/// A member of the archive: its name, what it is, and its text.
type Document = (&'static str, &'static str, String);

fn introduction(
    how: &BugReport,
    client: &Client,
    time: Timestamp,
    members: &[Document],
    missing: &[Missing],
) -> String {
    let user = rustix::process::geteuid();
    let source =
        if client.is_private() { "collected by vifctl itself, as the daemon did not answer" } else { "the daemon's" };
    let names = match (how.anonymous, how.redact_macs) {
        (false, _) => "Names and addresses are as they are; --anonymous replaces them.",
        (true, false) => {
            "Names of instances, projects, users and hosts, Keystone's ids and IP addresses are replaced by pseudonyms, the \
             same for the same name throughout. UUIDs, MAC addresses and names of devices are as they are."
        }
        (true, true) => {
            "Names of instances, projects, users and hosts, Keystone's ids, IP and MAC addresses are replaced by pseudonyms, \
             the same for the same name throughout. UUIDs and names of devices are as they are."
        }
    };
    let mut text = format!(
        "A bug report of vifd, made by `vifctl bug-report` at {time:.0}, as uid {}. The answers are {source}.\n\n",
        user.as_raw()
    );
    for (name, what, _) in members {
        text += &format!("  {name:<16} {what}\n");
    }
    if !missing.is_empty() {
        text += "\nMissing:\n\n";
    }
    for Missing { what, why } in missing {
        text += &format!("  {what}: {}\n", plain(why));
    }
    text + "\nPasswords, tokens and keys were left out where they were recognized. "
        + names
        + "\nLook through it before you give it to others.\n"
}

fn versions(openapi: Option<&Value>) -> String {
    let mut text = format!("vifctl {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(openapi) = openapi {
        text += &format!("vifd {}, OpenAPI {}\n", openapi["info"]["version"], openapi["openapi"]);
    }
    for file in ["/proc/version", "/etc/os-release"] {
        text += &format!("\n# {file}\n{}", fs::read_to_string(file).unwrap_or_else(|error| format!("{error}\n")));
    }
    for command in VERSIONS {
        let said = run(command).unwrap_or_else(|error| error + "\n");
        text += &format!("\n# {}\n{said}", command.join(" ").replace('\n', " "));
    }
    text
}

/// What a program prints.
fn run(command: &[&str]) -> Result<String, String> {
    let mut process = Command::new("timeout");
    process.args(["-k", "1", PATIENCE]).args(command).env("LC_ALL", "C").stdin(Stdio::null());
    let output = process.output().map_err(|error| format!("timeout: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(124 | 137) => Err(format!("{} did not end within {PATIENCE} s", command[0])),
        Some(126 | 127) => Err(format!("{} cannot be run here", command[0])),
        _ if text.trim().is_empty() => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("{}: {}", command[0], if why.is_empty() { "it printed nothing" } else { &why }))
        }
        _ => Ok(text),
    }
}

/// Writes the archive for its owner's eyes only.
fn write(path: &Path, force: bool, time: Timestamp, members: &[Document]) -> io::Result<()> {
    if force && path.is_file() {
        // Not over it: who has it open, or may read it, shall not read this.
        fs::remove_file(path)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, _, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(time.as_second().unsigned_abs());
        archive.append_data(&mut header, format!("vifd-bug-report/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

impl Readable for Written {
    fn text(&self, page: &mut Page) {
        page.line(format!("{} contains:", plain(&self.file.display().to_string())));
        for Member { name, bytes, what } in &self.contents {
            page.fact(2, name, format!("{what} ({bytes} bytes)"));
        }
        if !self.missing.is_empty() {
            page.gap();
            page.line("It lacks:");
        }
        for Missing { what, why } in &self.missing {
            page.line(format!("  {what}: {}", plain(why)));
        }
        page.gap();
        page.line("Passwords, tokens and keys were left out where they were recognized.");
        page.line(if self.anonymous {
            "Names and IP addresses are pseudonyms. Look through it before you give it to others."
        } else {
            "Names and addresses are in it (--anonymous replaces them). Look through it before you give it to others."
        });
    }

    fn names(&self) -> Vec<String> {
        vec![self.file.display().to_string()]
    }
}
