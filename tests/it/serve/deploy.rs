//! What `deploy/` says of the program is true: metrics exist, files are what their tools take.

use super::Served;
use crate::support::binary::Binary;
use crate::support::{eventually, need};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Names of our metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("freightliner_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let binary = Binary::new();
    binary.run(&["queue", "pause", "held"]).success();
    let served = Served::start(&binary, &["--api-key", "0123456789abcdef"]);
    served.get("/api/v1/jobs").expect(401);
    let client = Served { client: served.client.clone().bearer("0123456789abcdef"), ..served };
    let job = |queue: &str| json!({"source": "127.0.0.1:9/a:1", "destination": "127.0.0.1:9/b:1", "max_attempts": 1, "queue": queue});
    client.post("/api/v1/jobs", &job("held")).expect(202);
    client.post("/api/v1/jobs", &job("default")).expect(202);
    let text = eventually("the job's end in the metrics", || {
        let text = client.get("/metrics").expect(200).text();
        let is_told = text.contains("status=\"failed\"") && text.contains("queue_depth{queue=\"held\"} 1");
        is_told.then_some(text)
    });
    let known = metrics(&text);
    for name in ["prometheus/alerts.yml", "grafana/freightliner.json"] {
        let asked = metrics(&std::fs::read_to_string(file(name)).unwrap());
        assert!(asked.len() > 5, "{name}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} asks for {unknown:?}, there is {known:#?}");
    }
    client.end();
    let Some(promtool) = need("promtool") else { return };
    let mut child = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let rules = Command::new(&promtool).args(["check", "rules"]).arg(file("prometheus/alerts.yml")).output().unwrap();
    assert!(rules.status.success(), "{}", String::from_utf8_lossy(&rules.stdout));
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let Some(analyze) = need("systemd-analyze") else { return };
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("freightliner.service");
    let text = std::fs::read_to_string(file("systemd/freightliner.service")).unwrap();
    // The program is not installed here.
    std::fs::write(&unit, text.replace("/usr/bin/freightliner", "/bin/true")).unwrap();
    let output = Command::new(analyze).arg("verify").arg(&unit).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
