//! The command line from outside: words in; results, errors and exit codes out.

mod absent;
mod backup;
mod both;
mod copy_to;
mod enqueue;
mod from_file;
mod json;
mod output;
mod progress;
mod prune;
mod queues;
mod references;
mod schedules;
mod set_up;
mod sql;
mod steer;
mod vault;
mod waiting;
mod why;

use crate::support::binary::{Binary, Output};
use serde_json::Value;

/// The `error` object that a failed call with `-o json` leaves on stderr; nothing else may stand there.
pub fn error(output: &Output) -> Value {
    let text = output.errors();
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not one JSON value ({error}): {output}"));
    let error = value["error"].clone();
    let mut names: Vec<_> = error.as_object().expect("an object").keys().map(String::as_str).collect();
    names.retain(|name| *name != "lines");
    names.sort_unstable();
    assert_eq!(names, ["code", "hint", "message"], "{output}");
    assert!(
        error["message"].as_str().is_some_and(|message| !message.is_empty() && !message.contains('\n')),
        "{output}"
    );
    error
}

/// One number by SQL.
pub fn number(binary: &Binary, expression: &str) -> i64 {
    let rows = binary.run(&["sql", &format!("SELECT {expression} AS n"), "-o", "json"]).success().json();
    rows[0]["n"].as_i64().unwrap_or_else(|| panic!("{rows}"))
}

/// Asserts that an object has just these fields.
pub fn assert_names(value: &Value, expected: &[&str]) {
    let mut names: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(names, expected);
}
