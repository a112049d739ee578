//! `vifctl top` in a real terminal, which tmux is, with real traffic.

use std::process::{Command, Output};

use crate::support::{
    eventually,
    hypervisor::Hypervisor,
    vifd::{VIFCTL, Vifd},
};

/// A terminal with a shell in it. It ends when it is dropped.
struct Terminal(String);

impl Terminal {
    fn start(dir: &std::path::Path) -> Self {
        let terminal = Self(dir.join("tmux").to_str().unwrap().to_owned());
        let started =
            terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "130", "-y", "20", "env PS1=prompt: sh"]);
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux").args(["-S", &self.0]).args(arguments).env_remove("TMUX").output().unwrap()
    }

    fn type_in(&self, keys: &[&str]) {
        assert!(self.tmux(&[&["send-keys"], keys].concat()).status.success());
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    fn wait(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
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

    fn start_top(&self, vifd: &Vifd, more: &str) {
        self.type_in(&[&format!("clear; {VIFCTL} --socket {} top -d 0.2 {more}", vifd.socket.display()), "Enter"]);
        self.wait("it shows", |screen| screen.contains("vifctl top: guest's view"));
    }

    /// Ends what the shell runs, as systemd ends sessions.
    fn end_program(&self) {
        let text = |output: Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let shell = text(self.tmux(&["list-panes", "-F", "#{pane_pid}"]));
        let program = text(Command::new("pgrep").args(["-P", &shell]).output().unwrap());
        assert!(Command::new("kill").args(["-TERM", &program]).status().unwrap().success());
    }

    /// The shell has its terminal again, as it was: what is typed is seen, and Enter ends a line.
    fn wait_for_the_shell(&self, marker: &str) {
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

/// The value of a column in the line of a device, where both are on the screen.
fn cell(screen: &str, device: &str, column: &str) -> Option<String> {
    let header = screen.lines().find(|line| line.contains("RX BIT/S"))?;
    let line = screen.lines().find(|line| line.contains(device))?;
    let at = header.find(column)?;
    Some(line.get(at..)?.split_whitespace().next()?.to_owned())
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_busy_interface_is_on_top_and_the_terminal_is_given_back_whole() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    hypervisor.create_guest(1, 1);
    hypervisor.create("lxc:///system", "lxc_domain 2");
    let [idle, busy] = ["tap_name 1 0", "tap_name 2 0"].map(Hypervisor::id);
    vifd.wait("both", "/host/v1/vifs", |answer| answer["vifs"].as_array().unwrap().len() == 2);
    // Frames to the container, whose address the host is told.
    let mac = Hypervisor::id("mac_address 2 0");
    hypervisor.run(&format!(
        "ip addr add 10.9.0.1/24 dev br0; ip neigh add 10.9.0.2 lladdr {mac} dev br0; bridge fdb add {mac} dev {busy} master static"
    ));
    hypervisor.run("nsenter --target $(pgrep -x sleep) --net ip link set group default up");
    let mut traffic = hypervisor
        .command("bash")
        .args(["-c", "exec 3>/dev/udp/10.9.0.2/9; while :; do dd if=/dev/zero bs=1000 count=50 >&3 2>/dev/null; done"])
        .spawn()
        .unwrap();

    let terminal = Terminal::start(hypervisor.dir());
    terminal.start_top(&vifd, "");
    let positive = |text: Option<String>| text.is_some_and(|text| text != "0" && text != "-");
    // What the host sends into the veth, the container receives.
    let screen = terminal.wait("traffic", |screen| positive(cell(screen, &busy, "RX BIT/S")));
    assert_eq!(cell(&screen, &idle, "TX BIT/S").as_deref(), Some("0"), "{screen}");
    let first =
        |screen: &str| screen.lines().skip_while(|line| !line.contains("RX BIT/S")).nth(1).unwrap_or("").to_owned();
    terminal.wait("the busiest first", |screen| first(screen).contains(&busy) || first(screen).contains("br0"));
    terminal.type_in(&["g"]);
    terminal.wait("the host's view", |screen| {
        screen.contains("host's view")
            && positive(cell(screen, &busy, "TX BIT/S"))
            && !positive(cell(screen, &busy, "RX BIT/S"))
    });
    terminal.type_in(&["/", &idle, "Enter"]);
    terminal.wait("the filter", |screen| screen.contains(&idle) && !screen.contains(&busy) && screen.contains("1 of "));
    terminal.type_in(&["Escape"]);
    terminal.tmux(&["resize-window", "-x", "90", "-y", "8"]);
    terminal.wait("all of it, smaller", |screen| screen.contains(&busy) && screen.lines().count() <= 8);
    terminal.type_in(&["q"]);
    terminal.wait_for_the_shell("after-q");

    // Every other end.
    terminal.tmux(&["resize-window", "-x", "130", "-y", "20"]);
    terminal.start_top(&vifd, "");
    terminal.type_in(&["C-c"]);
    terminal.wait_for_the_shell("after-control-c");
    terminal.start_top(&vifd, "");
    terminal.end_program();
    terminal.wait_for_the_shell("after-sigterm");

    // For scripts.
    let (text, status) = vifd.vifctl(&["top", "-d", "0.2", "-b", "2", &busy]);
    assert_eq!((status, text.matches(&busy).count(), text.matches("guest's view").count()), (Some(0), 2, 2), "{text}");
    let (json, _) = vifd.vifctl(&["top", "-d", "0.2", "--once", "-o", "json", &busy]);
    let rated: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(rated["devices"][0]["rates"]["rx_bits"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!(vifd.vifctl(&["top"]).1, Some(2), "no terminal");
    traffic.kill().unwrap();
    traffic.wait().unwrap();

    // A daemon that goes away is a banner, not an end.
    terminal.start_top(&vifd, "");
    assert!(vifd.end("-KILL").code().is_none());
    terminal.wait("a banner", |screen| screen.contains("s old: ") && screen.contains(&busy));
    terminal.type_in(&["q"]);
    terminal.wait_for_the_shell("after-all");
}
