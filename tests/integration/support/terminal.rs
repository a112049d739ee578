//! A real terminal, which tmux is.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::eventually;

/// A terminal with a shell in it. It ends when it is dropped.
pub struct Terminal(String);

impl Terminal {
    pub fn start(dir: &Path, shell: &str) -> Self {
        let terminal = Self(dir.join("tmux").to_str().unwrap().to_owned());
        let started = terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "130", "-y", "20", shell]);
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    pub fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux").args(["-S", &self.0]).args(arguments).env_remove("TMUX").output().unwrap()
    }

    pub fn type_in(&self, keys: &[&str]) {
        assert!(self.tmux(&[&["send-keys"], keys].concat()).status.success());
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    pub fn wait(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut last = String::new();
        eventually(what, || {
            let screen = self.screen();
            if screen != last {
                eprintln!("{what}:\n{screen}");
                last.clone_from(&screen);
            }
            wanted(&screen).then_some(screen)
        })
    }

    /// Ends what the shell runs, as systemd ends sessions.
    pub fn end_program(&self) {
        let text = |output: Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let shell = text(self.tmux(&["list-panes", "-F", "#{pane_pid}"]));
        let program = text(Command::new("pgrep").args(["-P", &shell]).output().unwrap());
        assert!(Command::new("kill").args(["-TERM", &program]).status().unwrap().success());
    }

    /// The shell has its terminal again, as it was: what is typed is seen, and Enter ends a line.
    pub fn wait_for_the_shell(&self, marker: &str) {
        self.wait("the prompt", |screen| screen.trim_end().ends_with("prompt:"));
        self.type_in(&[&format!("echo {marker}"), "Enter"]);
        self.wait("a sane terminal", |screen| {
            screen.lines().any(|line| line == marker) && screen.contains(&format!("echo {marker}"))
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
