//! What the contract names and what is not there yet says so, and is in no help.

use super::{error, number};
use crate::support::binary::Binary;

const COMMANDS: [&str; 11] = [
    "serve",
    "replicate-tree a b",
    "sync --config x",
    "batch list",
    "checkpoint list",
    "login x",
    "logout x",
    "credentials list",
    "keys list",
    "mirror list",
    "config show",
];

#[test]
fn commands() {
    let binary = Binary::new();
    let help = binary.run(&["--help"]).success().text();
    let listed: Vec<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    for line in COMMANDS.into_iter().chain(["db prune", "scan x", "sbom x", "layers x"]) {
        let words: Vec<&str> = line.split(' ').collect();
        let output = binary.run(&words).expect_code(1);
        assert!(output.errors().starts_with("error: not implemented: "), "{line}: {output}");
        assert_eq!(output.text(), "");
        let output = binary.run(&[&words[..], &["-o", "json"]].concat()).expect_code(1);
        assert_eq!(error(&output)["code"], "not_implemented", "{line}");
        assert!(!listed.contains(&words[0]) || words[0] == "db", "{line} is in the help");
    }
    assert!(listed.contains(&"replicate") && listed.contains(&"jobs"), "{help}");
    let help = binary.run(&["db", "--help"]).success().text();
    assert!(!help.contains("  prune "), "{help}");
    let output = binary.run(&["scan", "alpine"]).expect_code(1);
    assert_eq!(output.errors(), "error: not implemented: use syft/grype/skopeo\n");
}

#[test]
fn options() {
    let binary = Binary::new();
    for option in ["--tags=a,b", "--all-tags"] {
        for command in ["replicate", "enqueue"] {
            let output = binary.run(&[command, option, "a.example/x:1", "b.example/x:1"]).expect_code(1);
            let name = option.split('=').next().unwrap();
            assert!(output.errors().starts_with(&format!("error: not implemented: {name}")), "{option}: {output}");
            let help = binary.run(&[command, "--help"]).success().text();
            assert!(!help.contains(&format!("  {name}")), "{name}: {help}");
        }
    }
    binary.run(&["jobs", "list", "--batch", "x"]).expect_code(1);
    binary.run(&["jobs", "cancel", "--state", "pending", "--batch", "x"]).expect_code(1);
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 0);
}

#[test]
fn options_of_rows() {
    let binary = Binary::new();
    binary.run(&["db", "migrate"]).success();
    let insert = "INSERT INTO jobs (source, destination, options) VALUES \
        ('a.example/x:1', 'b.example/x:1', '{\"all_tags\":true}')";
    if binary.sql(insert).is_none() {
        return;
    }
    binary.run(&["work", "--drain"]).expect_code(1);
    let job = binary.run(&["jobs", "show", "1", "-o", "json"]).success().json();
    assert_eq!(job["state"], "failed");
    assert!(job["failure"]["message"].as_str().unwrap().contains("unknown field `all_tags`"), "{job:#}");
}
