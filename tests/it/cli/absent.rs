//! What the contract names and what is not there yet says so, and is in no help.

use super::error;
use crate::support::binary::Binary;

const COMMANDS: [&str; 2] = ["auth list", "config show"];

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
