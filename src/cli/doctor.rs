//! `vifctl doctor`: what is not as it should be, the worst first, with the evidence and what to do.

use super::{
    client::{Client, ClientError, encode},
    complete,
    output::{BAD, DOUBT, FAINT, Output, Page, Readable, STRONG, styled},
    words::{age, plain},
};
use crate::{
    findings::{Affected, Code, Finding, Severity},
    http::host::{Answer, FindingsReport},
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// What to look at: whatever `vifctl who` takes [default: everything]
    #[arg(add = complete::things())]
    thing: Option<String>,
    /// Only findings with this code
    #[arg(long, value_name = "CODE")]
    code: Option<Code>,
    /// What was not seen often enough yet, too: it may be something that is just being made, or taken away
    #[arg(long)]
    unconfirmed: bool,
}

/// The exit status where the worst finding is a warning.
const WARNINGS: u8 = 10;
/// The exit status where there is an error.
const ERRORS: u8 = 11;

impl Doctor {
    /// Gives the exit status.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<u8, ClientError> {
        let mut answer: Answer<FindingsReport> = client.get(&self.path(self.unconfirmed))?;
        // A daemon that has just been started has seen everything once. That is better than nothing.
        if answer.body.young && !self.unconfirmed {
            answer = client.get(&self.path(true))?;
        }
        output.write(&answer)?;
        let worst = answer.body.findings.iter().map(|finding| finding.severity).min();
        Ok(match worst {
            None => 0,
            Some(Severity::Warning) => WARNINGS,
            Some(Severity::Error) => ERRORS,
        })
    }

    fn path(&self, unconfirmed: bool) -> String {
        let mut path = format!("/host/v1/findings?unconfirmed={unconfirmed}");
        if let Some(thing) = &self.thing {
            path += &format!("&subject={}", encode(thing));
        }
        if let Some(code) = self.code {
            path += &format!("&code={code}");
        }
        path
    }
}

impl Readable for Answer<FindingsReport> {
    fn text(&self, page: &mut Page) {
        let FindingsReport { findings, unconfirmed, young, unseen, .. } = &self.body;
        let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        page.line(match (of(Severity::Error), of(Severity::Warning)) {
            (0, 0) if unseen.is_empty() => "Nothing is wrong.".to_owned(),
            (0, 0) => "Nothing is wrong, as far as can be seen.".to_owned(),
            (errors, 0) => format!("{}.", count(errors, "error")),
            (0, warnings) => format!("{}.", count(warnings, "warning")),
            (errors, warnings) => format!("{} and {}.", count(errors, "error"), count(warnings, "warning")),
        });
        for finding in findings {
            page.gap();
            tell(page, finding);
        }
        page.gap();
        page.line(looked_at(&self.body));
        for unseen in unseen {
            let (source, reason) = (plain(&unseen.source), plain(&unseen.reason));
            page.line(styled(DOUBT, format!("! not looked at: {}: {source}: {reason}", plain(&unseen.what))));
        }
        let told = findings.iter().filter(|finding| !finding.confirmed).count();
        if *unconfirmed > told && !young {
            let more = count(unconfirmed - told, "more thing");
            page.line(format!("{more} seen, and not long enough to be sure: vifctl doctor --unconfirmed"));
        }
    }

    fn names(&self) -> Vec<String> {
        self.body.findings.iter().map(|finding| finding.subject.name.to_string()).collect()
    }
}

fn looked_at(report: &FindingsReport) -> String {
    let FindingsReport { young, rules, instances, vifs, links, ovs_ports, .. } = report;
    let ports = if *ovs_ports > 0 { format!(", {}", count(*ovs_ports, "Open vSwitch port")) } else { String::new() };
    let times = if *young { " once: what is only passing was not told from what stays" } else { "" };
    format!(
        "Looked at {}, {}, {}{ports} with {rules} rules{times}.",
        count(*instances, "instance"),
        count(*vifs, "VIF"),
        count(*links, "link"),
    )
}

fn tell(page: &mut Page, finding: &Finding) {
    let style = if finding.severity == Severity::Error { BAD } else { DOUBT };
    let severity = styled(style, finding.severity.to_string().to_uppercase());
    page.line(format!("{severity}  {}  {}", finding.code, styled(STRONG, plain(&finding.subject.name))));
    page.line(format!("  {}.", capitalized(&plain(&finding.summary))));
    for (n, evidence) in finding.evidence.iter().enumerate() {
        page.fact(2, if n == 0 { "evidence" } else { "" }, plain(evidence));
    }
    if !finding.affects.is_empty() {
        page.fact(2, "concerns", concerned(&finding.affects));
    }
    let first = jiff::Timestamp::from(finding.first_seen);
    page.fact(
        2,
        "since",
        match finding.confirmed {
            true => format!("seen for {}, since {first}", age(finding.first_seen)),
            false => format!("seen once, or for a moment only, at {first}"),
        },
    );
    page.fact(2, "do", &finding.advice);
    for command in &finding.commands {
        page.fact(2, "", format!("  {}", plain(command)));
    }
    page.fact(2, "read", styled(FAINT, &finding.runbook));
}

/// Whom it concerns, as far as a line has space for them.
fn concerned(affects: &[Affected]) -> String {
    let mut names: Vec<_> = affects.iter().map(|vif| plain(&vif.instance_name)).collect();
    names.dedup();
    let more = names.len().saturating_sub(3);
    names.truncate(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} of {}{more}", count(affects.len(), "VIF"), names.join(", "))
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    // A name keeps its spelling: only what is not a device's begins a sentence.
    match chars.next() {
        Some(first) if text.starts_with("the ") || text.starts_with("no ") || text.starts_with("every ") => {
            first.to_uppercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
