//! Writes the man pages into a directory: from the command lines of the programs, and the few words here that these do
//! not have. `make man` runs it.

use std::{env, error::Error, fs, path::Path};

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

const VIFCTL_EXIT: &[(&str, &str)] = &[
    ("0", "answered"),
    ("1", "nothing matches what was asked for"),
    ("2", "the command line is wrong"),
    ("3", "the daemon is not there, and nothing was to be collected without it"),
    ("4", "the daemon could not answer"),
    ("10", "doctor: there are warnings"),
    ("11", "doctor: there are errors"),
];

const VIFCTL_FILES: &[(&str, &str)] = &[
    ("/run/vifd/vifd.sock", "the daemon's socket: for root, and for members of its group"),
    ("/etc/vifd/vifd.toml", "the daemon's configuration, which says what to collect where no daemon answers"),
];

const VIFCTL_ENVIRONMENT: &[(&str, &str)] = &[
    ("NO_COLOR", "no colours, unless --color always asks for them"),
    ("COMPLETE", "bash, zsh or fish: write the script that makes this shell ask vifctl what to offer"),
];

const VIFD_EXIT: &[(&str, &str)] =
    &[("0", "it was told to stop"), ("1", "it could not go on"), ("78", "the configuration is wrong")];

const VIFD_ENVIRONMENT: &[(&str, &str)] = &[(
    "VIFD_KEY, VIFD_SECTION__KEY",
    "a key of the configuration, whatever the file says, such as VIFD_LOG=debug or VIFD_HTTP__CONNECTIONS=1024",
)];

const VIFD_FILES: &[(&str, &str)] = &[
    ("/etc/vifd/vifd.toml", "the configuration, with every key, its default and what it means"),
    ("/run/vifd/vifd.sock", "where it serves HTTP"),
    ("/var/lib/vifd/journal.db", "the flight recorder: what vifctl history reads"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).ok_or("which directory?")?;
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;

    let mut vifctl = vifd::cli::Arguments::command();
    vifctl.build();
    let mut commands: Vec<_> = vifctl.get_subcommands().filter(|command| command.get_name() != "help").collect();
    commands.sort_by_key(|command| command.get_name());
    for command in &commands {
        let name = format!("vifctl-{}", command.get_name());
        let page = (*command).clone().display_name(&name);
        write(directory, page, "1", &[("EXIT STATUS", VIFCTL_EXIT)], &["vifctl(1)", "vifd(8)"])?;
    }
    let pages: Vec<_> = commands.iter().map(|command| format!("vifctl-{}(1)", command.get_name())).collect();
    let others: Vec<_> = pages.iter().map(String::as_str).chain(["vifd(8)"]).collect();
    let sections = [("EXIT STATUS", VIFCTL_EXIT), ("ENVIRONMENT", VIFCTL_ENVIRONMENT), ("FILES", VIFCTL_FILES)];
    write(directory, vifctl.clone(), "1", &sections, &others)?;

    let vifd = vifd::arguments::Arguments::command();
    let sections = [("EXIT STATUS", VIFD_EXIT), ("ENVIRONMENT", VIFD_ENVIRONMENT), ("FILES", VIFD_FILES)];
    write(directory, vifd, "8", &sections, &["vifctl(1)", "libvirtd(8)"])
}

fn write(
    directory: &Path,
    command: Command,
    section: &str,
    terms: &[(&str, &[(&str, &str)])],
    others: &[&str],
) -> Result<(), Box<dyn Error>> {
    let page = Man::new(command)
        .section(section)
        .source(concat!("vifd ", env!("CARGO_PKG_VERSION")))
        .manual("Virtual interfaces of instances");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if section == "1" && others.len() > 2 {
        page.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    for (title, rows) in terms {
        rest.control("SH", [*title]);
        for (term, meaning) in *rows {
            rest.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
        }
    }
    rest.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
    rest.to_writer(&mut text)?;
    fs::write(directory.join(page.get_filename()), text)?;
    Ok(())
}
