//! TAB in real shells: what the daemon knows is offered.

use std::{fs, path::Path, process::Command};

use crate::support::{
    terminal::Terminal,
    vifd::{VIFCTL, VIFD, Vifd},
};

const PORT: &str = "a756caef-c731-4df1-a814-0dba057b039f";

/// The test host's daemon.
fn start(dir: &Path) -> Vifd {
    let file = dir.join("host.xml");
    fs::write(&file, include_str!("../data/host.xml")).unwrap();
    let vifd = Vifd::start(Command::new(VIFD), dir, &format!("[libvirt]\nuris = ['test://{}']\n", file.display()));
    vifd.wait("the test host is read", "/host/v1/sync", |sync| sync["instances"] == 2);
    vifd
}

/// In a shell, after what makes it complete `vifctl`.
fn complete(shell: &str, before: &str) {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let vifd = start(dir.path());
    let terminal = Terminal::start(dir.path(), shell);
    let programs = Path::new(VIFCTL).parent().unwrap().display();
    let ask = format!(
        "{before}export PATH={programs}:$PATH; COMPLETE={} vifctl >{}/script",
        name(shell),
        dir.path().display()
    );
    terminal.type_in(&[&ask, "Enter"]);
    terminal.type_in(&[&format!("source {}/script; clear", dir.path().display()), "Enter"]);
    let socket = vifd.socket.display();
    for (typed, completed) in [
        ("vifctl wat".to_owned(), "vifctl watch"),
        (format!("vifctl --socket {socket} show inst"), "show instance-0000002a"),
        (format!("vifctl --socket {socket} who a756"), PORT),
    ] {
        terminal.type_in(&["-l", &typed]);
        terminal.type_in(&["Tab"]);
        terminal.wait(completed, |screen| screen.replace('\n', "").contains(completed));
        terminal.type_in(&["C-u"]);
    }
    // Nothing is offered, and nobody waits, where no daemon answers.
    terminal.type_in(&["-l", "vifctl --socket /nowhere show inst"]);
    terminal.type_in(&["Tab"]);
    terminal.type_in(&["-l", " --end"]);
    terminal.wait("no answer", |screen| screen.contains("show inst --end") || screen.contains("show inst  --end"));
}

fn name(shell: &str) -> &str {
    shell.split(' ').next().unwrap()
}

#[test]
#[ignore = "needs tmux: run by make test"]
fn bash_offers_what_the_daemon_knows() {
    complete("bash --norc --noprofile", "");
}

#[test]
#[ignore = "needs zsh: run by make test"]
fn zsh_offers_what_the_daemon_knows() {
    complete("zsh -f", "autoload -U compinit; compinit -u -D; ");
}

#[test]
#[ignore = "needs fish: run by make test"]
fn fish_offers_what_the_daemon_knows() {
    complete("fish --no-config", "");
}
