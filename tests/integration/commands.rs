//! What people, shells and programs read of `vifctl`: formats, widths, colours, and names that mean harm.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::vifd::{VIFCTL, VIFD, Vifd};

const WEB: &str = "874092fe-19a7-44bd-a16a-4fb617bfef7a";
const PORT: &str = "a756caef-c731-4df1-a814-0dba057b039f";
/// It writes from right to left, hides an `x`, and is longer than a terminal is wide.
const NAME: &str =
    "数据库 \u{202e}gpj\u{200b}x and a name that goes on for as long as somebody has patience to type one";

struct Host {
    vifd: Vifd,
    _dir: tempfile::TempDir,
}

/// Two instances, one of which has a name that means harm.
fn host() -> Host {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let description = include_str!("../data/host.xml").replace(">web<", &format!(">{NAME}<"));
    let file = dir.path().join("host.xml");
    fs::write(&file, description).unwrap();
    let config = format!("[libvirt]\nuris = ['test://{}']\n", file.display());
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &config);
    vifd.wait("the test host is read", "/host/v1/sync", |sync| sync["instances"] == 2);
    vifd.wait_ready();
    Host { vifd, _dir: dir }
}

impl Host {
    /// What it prints into a pipe.
    fn said(&self, arguments: &[&str]) -> String {
        let (text, status) = self.vifd.vifctl(arguments);
        assert_eq!(status, Some(0), "{text}");
        text
    }

    /// What it prints to a terminal of this width, with this in its environment.
    fn on_terminal(&self, columns: u32, environment: &str, arguments: &str) -> String {
        let socket = self.vifd.socket.display();
        let command = format!("stty cols {columns}; {environment} {VIFCTL} --socket {socket} {arguments}");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        // Those who run the tests may have wishes of their own. `CI` makes even a dumb terminal one with colours.
        for wish in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
            script.env_remove(wish);
        }
        let output = script.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
    }
}

fn without_styles(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn every_format_tells_the_same_to_whom_it_is_for() {
    let host = host();
    for command in [&["list"][..], &["show", "42"], &["who", PORT], &["status"]] {
        let json: Value = serde_json::from_str(&host.said(&[command, &["-o", "json"]].concat())).unwrap();
        let yaml: Value = serde_saphyr::from_str(&host.said(&[command, &["-o", "yaml"]].concat())).unwrap();
        assert!(json["generation"].is_u64() && json == yaml, "{json}\n{yaml}");
    }
    assert!(host.said(&["-o", "json", "list"]).contains("\\u202egpj\\u200bx"));

    let uuids = format!("11111111-2222-4333-8444-555555555555\n{WEB}\n");
    assert_eq!(host.said(&["list", "-o", "name"]), uuids);
    assert_eq!(host.said(&["show", "42", "-o", "name"]), format!("{WEB}\n"));
    assert_eq!(host.said(&["who", "fa:16:3e:00:00:2a", "-o", "name"]), format!("{PORT}\n"));
    assert!(host.said(&["status", "-o", "name"]).starts_with("netlink\n"));

    let (narrow, wide) = (host.said(&["list"]), host.said(&["list", "-o", "wide"]));
    assert!(!narrow.contains("10.0.0.45") && wide.contains("10.0.0.45") && wide.contains("br0"), "{wide}");
    assert_eq!(narrow.lines().count(), 4);
    let rows = host.said(&["list", "--no-headers"]);
    assert!(rows.lines().count() == 3 && !rows.contains("MAC ADDRESS"), "{rows}");
}

#[test]
fn a_pipe_gets_whole_names_and_a_terminal_lines_that_fit() {
    let host = host();
    let name = NAME.replace(['\u{202e}', '\u{200b}'], "\u{fffd}");
    let piped = host.said(&["list"]);
    assert!(piped.contains(&name) && !piped.contains(['\u{1b}', '…']), "{piped}");
    for columns in [130, 150, 180] {
        let text = without_styles(&host.on_terminal(columns, "", "list"));
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns as usize && text.contains('…') && text.contains(PORT), "{text}");
        assert!(!text.contains(&name) && text.contains("数据库 \u{fffd}"), "{text}");
    }
    // Too narrow for the ids alone: each row is a paragraph.
    let text = without_styles(&host.on_terminal(40, "", "list"));
    assert!(text.contains(&format!("VIF ID       {PORT}\n")), "{text}");
    assert!(text.lines().any(|line| line == "MAC ADDRESS  52:54:00:00:00:01"), "{text}");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let host = host();
    let is_coloured = |text: &str| text.contains('\u{1b}');
    assert!(is_coloured(&host.on_terminal(200, "", "list")));
    for environment in ["NO_COLOR=1", "CLICOLOR=0", "TERM=dumb"] {
        assert!(!is_coloured(&host.on_terminal(200, environment, "list")), "{environment}");
    }
    assert!(!is_coloured(&host.on_terminal(200, "", "list --color never")));
    assert!(!is_coloured(&host.said(&["list", "--color", "auto"])));
    assert!(is_coloured(&host.said(&["list", "--color", "always"])));
    assert!(!is_coloured(&host.said(&["list", "--color", "always", "-o", "json"])));
}

#[test]
fn who_takes_the_beginning_of_anything_and_says_that_it_is_one() {
    let host = host();
    for whole in [PORT, "FA-16-3E-00-00-2A", "fa16.3e00.002a", "10.0.0.45", "tapa756caef-c7"] {
        let said = host.said(&["who", whole]);
        assert!(said.starts_with(&format!("VIF {PORT} (fa:16:3e:00:00:2a) of instance")), "{said}");
        assert!(said.contains("id from      the cloud's metadata: the instance's one port"), "{said}");
        assert!(said.contains("device from  the kernel's links: no link has the name tapa756caef-c7;"), "{said}");
    }
    for beginning in ["a756", "fa163e", "FA:16:3", "10.0.0.4", "tapa7", "TAPA"] {
        let said = host.said(&["who", beginning]);
        assert!(
            said.starts_with(&format!("Nothing is {beginning} as a whole; this begins so:\n\nVIF {PORT}")),
            "{said}"
        );
        assert_eq!(host.vifd.get(&format!("/host/v1/who?thing={beginning}"))["by_beginning"], true);
    }
    let said = host.said(&["who", "42"]);
    assert!(said.contains("Instance instance-0000002a") && said.contains("integer id"), "{said}");

    // Both VIFs, and whatever device of this machine has the letters.
    let said = host.said(&["who", "te"]);
    assert!(said.contains("testnet0"), "{said}");
    let (said, status) = host.vifd.vifctl(&["who", "instnace-0000002a"]);
    assert_eq!(status, Some(1));
    for words in ["Did you mean instance-0000002a?", "Searched: names"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn show_takes_what_leads_to_one_instance_and_tells_why_it_believes_each_fact() {
    let host = host();
    for thing in [WEB, "42", "instance-0000002a", "fa:16:3e:00:00:2a", "a756", "tapa756caef-c7", "10.0.0.45"] {
        assert!(host.said(&["show", thing]).contains(WEB), "{thing}");
    }
    for (thing, words) in [
        ("instance-0000002b", "is it instance-0000002a?"),
        ("lo", "lo belongs to no instance; see `vifctl who lo`"),
        ("nothing-like-it", "no instance has the UUID, name or number nothing-like-it"),
    ] {
        let (said, status) = host.vifd.vifctl(&["show", thing]);
        assert!(status == Some(1) && said.contains(words), "{said}");
    }

    let why = host.said(&["show", "42", "--why"]);
    let line =
        |of: &str| why.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("{of}:\n{why}")).to_owned();
    assert!(line(PORT).starts_with("VIF 0"), "{why}");
    for (fact, by) in [
        ("fa:16:3e:00:00:2a", "the domain's XML      <mac address>"),
        ("10.0.0.45", "the cloud's metadata  a fixed address of the port"),
        ("missing", "the kernel's links    no link has the name tapa756caef-c7"),
    ] {
        assert!(line(fact).contains(by) && line(fact).contains(" for "), "{why}");
    }
    let narrow = without_styles(&host.on_terminal(80, "", "show 42 --why"));
    assert!(
        narrow.contains("mac          fa:16:3e:00:00:2a\n               the domain's XML: <mac address>; kept"),
        "{narrow}"
    );
}

#[test]
fn list_shows_what_is_asked_for() {
    let host = host();
    let rows = |filter: &[&str]| host.vifd.vifctl(&[&["list", "--no-headers"], filter].concat());
    for (filter, count) in [
        (&["--project", "shop"][..], 2),
        (&["--project", "bf75459b5c334ca1ada07d66736389fc", "--bridge", "br0"], 1),
        (&["--state", "running"], 3),
    ] {
        let (text, status) = rows(filter);
        assert!(status == Some(0) && text.lines().count() == count, "{filter:?}:\n{text}");
    }
    for filter in [["--project", "other"], ["--state", "shut-off"], ["--bridge", "br1"]] {
        assert_eq!(rows(&filter), ("No instances.\n".to_owned(), Some(1)), "{filter:?}");
    }
}
