//! `vifctl top` in a real terminal, which tmux is, with real traffic.

use crate::support::{
    hypervisor::Hypervisor,
    terminal::Terminal,
    vifd::{VIFCTL, Vifd},
};

fn start_top(terminal: &Terminal, vifd: &Vifd, more: &str) {
    terminal.type_in(&[&format!("clear; {VIFCTL} --socket {} top -d 0.2 {more}", vifd.socket.display()), "Enter"]);
    terminal.wait("it shows", |screen| screen.contains("vifctl top: guest's view"));
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

    let terminal = Terminal::start(hypervisor.dir(), "env PS1=prompt: sh");
    start_top(&terminal, &vifd, "");
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
    start_top(&terminal, &vifd, "");
    terminal.type_in(&["C-c"]);
    terminal.wait_for_the_shell("after-control-c");
    start_top(&terminal, &vifd, "");
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
    start_top(&terminal, &vifd, "");
    assert!(vifd.end("-KILL").code().is_none());
    terminal.wait("a banner", |screen| screen.contains("s old: ") && screen.contains(&busy));
    terminal.type_in(&["q"]);
    terminal.wait_for_the_shell("after-all");
}
