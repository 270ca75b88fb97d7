//! `sql`: reads everything, writes nothing.

use super::{error, number};
use crate::support::binary::Binary;
use serde_json::json;

#[test]
fn results_are_a_table_or_json() {
    let binary = Binary::new();
    let query = "SELECT 1 AS one, 'x' AS text, NULL AS none, 2.5 AS half";
    assert_eq!(
        binary.run(&["sql", query, "-o", "json"]).success().json(),
        json!([{ "one": 1, "text": "x", "none": null, "half": 2.5 }])
    );
    let output = binary.run(&["sql", query]).success();
    let lines: Vec<Vec<&str>> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| std::str::from_utf8(line).unwrap().split_whitespace().collect())
        .collect();
    assert_eq!(lines, [vec!["one", "text", "none", "half"], vec!["1", "x", "2.5"]]);
    let output = binary.run(&[
        "sql",
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 50) SELECT i FROM n",
        "--limit",
        "3",
        "-o",
        "jsonl",
    ]);
    assert_eq!(output.success().text(), "{\"i\":1}\n{\"i\":2}\n{\"i\":3}\n");
}

#[test]
fn nothing_can_be_written() {
    let binary = Binary::new();
    binary.run(&["enqueue", "a.example/x:1", "b.example/x:1"]).success();
    let copy = binary.home().join("copy.db");
    let copy = copy.display();
    for statement in [
        "UPDATE jobs SET priority = 1".to_owned(),
        "DELETE FROM jobs".to_owned(),
        "INSERT INTO jobs (source, destination) VALUES ('a', 'b')".to_owned(),
        "INSERT INTO jobs (source, destination) VALUES ('a', 'b') RETURNING id".to_owned(),
        "WITH x AS (SELECT 1) DELETE FROM jobs".to_owned(),
        "DROP VIEW audit_jobs".to_owned(),
        "CREATE TABLE x (a)".to_owned(),
        "CREATE TEMP TABLE x (a)".to_owned(),
        "PRAGMA user_version = 7".to_owned(),
        "PRAGMA journal_mode = DELETE".to_owned(),
        "PRAGMA writable_schema = 1".to_owned(),
        "VACUUM".to_owned(),
        format!("VACUUM INTO '{copy}'"),
        format!("ATTACH '{copy}' AS x"),
        "BEGIN IMMEDIATE".to_owned(),
        "SELECT 1; DELETE FROM jobs".to_owned(),
    ] {
        let output = binary.run(&["sql", &statement]);
        assert!(matches!(output.code(), Some(1 | 2)), "{statement}: {output}");
        assert!(output.errors().starts_with("error: ") && output.text().is_empty(), "{statement}: {output}");
    }
    assert!(!binary.home().join("copy.db").exists());
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs WHERE priority = 100)"), 1);
    assert_eq!(number(&binary, "(SELECT user_version FROM pragma_user_version)"), 0);
}

#[test]
fn wrong_and_endless_queries_end() {
    let binary = Binary::new();
    let output = binary.run(&["sql", "SELEC 1", "-o", "json"]);
    assert!(matches!(output.code(), Some(1 | 2)), "{output}");
    assert!(error(&output)["message"].as_str().unwrap().contains("SELEC"), "{output}");
    let endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let output = binary.run(&["sql", endless, "--timeout", "300ms"]).expect_code(1);
    assert!(output.errors().contains("300"), "it says how long it was given: {output}");
}
