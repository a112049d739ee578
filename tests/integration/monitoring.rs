//! What `packaging/` has for Prometheus and Grafana, in a real Prometheus that scrapes a real vifd with real guests.
//!
//! Debian has no Grafana. Its dashboard is read by Grafana's own schema, and every query in it is asked of Prometheus.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    eventually,
    hypervisor::{Hypervisor, output},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:9775'\n";

fn packaged(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&packaged("packaging/grafana/vifd.json")).unwrap()
}

/// Prometheus inside a hypervisor, with the packaged rules.
struct Prometheus<'a> {
    hypervisor: &'a Hypervisor,
    process: Child,
}

impl<'a> Prometheus<'a> {
    fn start(hypervisor: &'a Hypervisor) -> Self {
        let dir = hypervisor.dir();
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: ['{ROOT}/packaging/prometheus/vifd.rules.yml']
scrape_configs:
  - {{job_name: vifd, static_configs: [{{targets: ['127.0.0.1:9775']}}]}}\n"
        );
        fs::write(&config, text).unwrap();
        let process = hypervisor
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("prometheus.log")).unwrap())
            .spawn()
            .unwrap();
        Self { hypervisor, process }
    }

    /// The data of an answer; nothing if there is none yet.
    fn get(&self, path: &str, query: &str) -> Option<Value> {
        let mut curl = self.hypervisor.command("curl");
        curl.args(["--silent", "--get", "--data-urlencode"]).arg(format!("query={query}"));
        let said = curl.arg(format!("http://127.0.0.1:9090/api/v1/{path}")).output().unwrap().stdout;
        let answer: Value = serde_json::from_slice(&said).ok()?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        Some(answer["data"].clone())
    }

    /// How many series a query gives.
    fn count(&self, query: &str) -> usize {
        self.get("query", query).map_or(0, |data| data["result"].as_array().unwrap().len())
    }

    /// The state of each alert, by its name, once every rule has been evaluated.
    fn alerts(&self) -> Option<Vec<(String, String)>> {
        let groups = self.get("rules", "")?["groups"].take();
        let rules: Vec<_> = groups.as_array()?.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
        let evaluated = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
        evaluated.then(|| {
            rules
                .iter()
                .map(|rule| {
                    assert_eq!(rule["health"], "ok", "{rule}");
                    (text(rule, "name"), text(rule, "state"))
                })
                .collect()
        })
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_real_prometheus_has_data_for_every_panel_and_no_alert_on_a_healthy_host() {
    let hypervisor = Hypervisor::start();
    hypervisor.run("ip link set lo up");
    hypervisor.create_guest(1, 2);
    hypervisor.create("lxc:///system", "lxc_domain 2");
    let vifd = hypervisor.vifd(METRICS);
    let prometheus = Prometheus::start(&hypervisor);
    eventually("rates are there", || (prometheus.count("rate(vifd_vif_receive_bytes_total[10s])") == 3).then_some(()));

    let dashboard = dashboard();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$host", ".*").replace("$project", ".*").replace("$__rate_interval", "10s");
            eventually(&format!("data for {}: {query}", panel["title"]), || {
                (prometheus.count(&query) > 0).then_some(())
            });
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} queries");
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().skip(1) {
        let query = variable["query"]["query"].as_str().unwrap().replace("$host", ".*");
        let (metric, label) =
            query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        assert!(prometheus.count(&format!("count by ({label}) ({metric})")) > 0, "{query}");
    }
    // Prometheus chose OpenMetrics by itself.
    assert_eq!(prometheus.count("vifd_vif_receive_bytes_created"), 3);

    let alerts = eventually("every rule is evaluated", || prometheus.alerts());
    let noisy: Vec<_> = alerts.iter().filter(|(_, state)| state != "inactive").collect();
    assert!(alerts.len() >= 14 && noisy.is_empty(), "{alerts:?}");
    drop(vifd);
    eventually("the end of vifd is noticed", || {
        let alerts = prometheus.alerts()?;
        alerts.contains(&("VifdDown".to_owned(), "pending".to_owned())).then_some(())
    });
}

#[test]
#[ignore = "needs what make deps installs: run by make test"]
fn each_alert_fires_when_it_should_and_leads_to_its_page() {
    let promtool = |arguments: [&str; 3]| {
        let mut command = Command::new("promtool");
        output(command.args(arguments).current_dir(format!("{ROOT}/packaging/prometheus")))
    };
    promtool(["check", "rules", "vifd.rules.yml"]);
    promtool(["test", "rules", "vifd.rules.test.yml"]);

    let (rules, tests, pages) = (
        packaged("packaging/prometheus/vifd.rules.yml"),
        packaged("packaging/prometheus/vifd.rules.test.yml"),
        packaged("docs/alerts.md"),
    );
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let headings: Vec<_> = pages.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(names, headings);
    let urls: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    // Of findings, to the finding's own.
    let anchor = |name: &&str| match *name {
        "VifdFinding" => "\"docs/findings.md#{{ $labels.code }}\"".to_owned(),
        name => format!("docs/alerts.md#{}", name.to_lowercase()),
    };
    let anchors: Vec<_> = names.iter().map(anchor).collect();
    assert_eq!(urls, anchors);
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n")), "no test of {name}");
    }
}

#[test]
#[ignore = "needs what make deps installs: run by make test"]
fn the_dashboard_is_one_by_grafanas_own_schema() {
    let script = format!("{ROOT}/tests/testbed/dashboard");
    let said = output(Command::new(script).arg("check").arg(format!("{ROOT}/packaging/grafana/vifd.json")));
    assert_eq!(said.trim(), "");
    // No two panels have one id, or a place in common.
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let number = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    for (n, one) in panels.iter().enumerate() {
        assert!(number(one, "x") + number(one, "w") <= 24, "{}", one["title"]);
        for other in &panels[n + 1..] {
            assert_ne!(one["id"], other["id"]);
            let apart = |at: &str, size: &str| {
                number(one, at) + number(one, size) <= number(other, at)
                    || number(other, at) + number(other, size) <= number(one, at)
            };
            assert!(apart("x", "w") || apart("y", "h"), "{} lies on {}", one["title"], other["title"]);
        }
    }
}
