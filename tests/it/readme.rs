//! The README's SQL, run as it stands there: what it promises is what the database does.

use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::support::fake::Fake;
use crate::support::image::ImageBuilder;

const README: &str = include_str!("../../README.md");
/// Stands before each query that is promised to work.
const MARK: &str = "<!-- audit-query -->";

/// All blocks of SQL, with whether the mark stands before them.
fn blocks() -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut lines = README.lines();
    let mut marked = false;
    while let Some(line) = lines.next() {
        if line.trim() == "```sql" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            found.push((marked, block.join("\n")));
            marked = false;
        } else if line.trim() == MARK {
            marked = true;
        }
    }
    found
}

/// A database with a completed, a failed and a waiting job, whose destination is the one in the README's examples.
fn database() -> Binary {
    let binary = Binary::new();
    let fake = Fake::start();
    fake.put_image("team/app", "v1", &ImageBuilder::oci(1).layer(1_000).build());
    let add = |arguments: &[&str]| binary.run(&[&["enqueue"], arguments].concat()).success();
    add(&[&fake.reference("team/app", "v1"), &fake.reference("copy/app", "v1")]);
    add(&[&fake.reference("team/app", "absent"), &fake.reference("copy/app", "v2")]);
    binary.run(&["work", "--drain"]).expect_code(1);
    add(&["quay.io/org/app:1.2", "registry.example.com/app:1.2", "--in", "1h"]);
    binary
}

#[test]
fn every_marked_query_runs_in_both_programs_and_says_the_same() {
    let queries: Vec<String> = blocks().into_iter().filter(|(marked, _)| *marked).map(|(_, query)| query).collect();
    assert!(queries.len() >= 5, "five example questions at least, found {}", queries.len());
    assert_eq!(queries.len(), README.matches(MARK).count(), "every mark stands before a block of SQL");
    let binary = database();
    for query in &queries {
        let rows = binary.run(&["sql", query.trim_end_matches(';'), "-o", "json"]).success().json();
        assert_eq!(binary.run(&["sql", query, "-o", "json"]).success().json(), rows, "with its semicolon");
        if let Some(lines) = binary.sql(query) {
            assert_eq!(lines.len(), rows.as_array().unwrap().len(), "{query}");
        }
        // Each of them finds something here, but the one that asks for dead workers.
        assert_eq!(rows.as_array().unwrap().is_empty(), query.contains("'expired'"), "{query}\n{rows}");
    }
}

#[test]
fn the_inserts_are_accepted() {
    let binary = database();
    let inserts: Vec<String> =
        blocks().into_iter().map(|(_, block)| block).filter(|block| block.starts_with("INSERT INTO jobs")).collect();
    assert!(inserts.len() >= 2, "{inserts:?}");
    for (insert, nth) in inserts.iter().zip(1_i64..) {
        if binary.sql(insert).is_none() {
            return;
        }
        let count = binary.sql("SELECT count(*) FROM jobs").unwrap();
        assert_eq!(count, [(3 + nth).to_string()], "{insert}");
        assert!(binary.run(&["sql", insert]).code() != Some(0), "`freightliner sql` only reads");
    }
    let states = binary.sql("SELECT DISTINCT state FROM jobs WHERE id > 3 ORDER BY 1").unwrap();
    assert!(states.iter().all(|state| state == "pending" || state == "scheduled"), "{states:?}");
    // Keyed ones may be repeated.
    for insert in inserts.iter().filter(|insert| insert.contains("ON CONFLICT DO NOTHING")) {
        let before = binary.sql("SELECT count(*) FROM jobs");
        binary.sql(insert);
        assert_eq!(binary.sql("SELECT count(*) FROM jobs"), before, "{insert}");
    }
}

#[test]
fn the_way_to_cancel_by_sql_works() {
    let binary = database();
    let line = README.lines().find(|line| line.contains("`UPDATE jobs SET cancel_requested_at")).expect("it is told");
    let statement = line.split('`').find(|part| part.starts_with("UPDATE jobs")).unwrap();
    let (before, _) = statement.split_once("WHERE id = ").expect("it names a job");
    if binary.sql(&format!("{before} WHERE id = 3")).is_none() {
        return;
    }
    assert_eq!(binary.sql("SELECT state FROM jobs WHERE id = 3").unwrap(), ["cancelled"]);
}

#[test]
fn the_columns_in_the_readme_are_those_of_the_views() {
    let binary = database();
    for view in [
        "audit_jobs",
        "audit_events",
        "audit_attempts",
        "audit_transfers",
        "audit_schedules",
        "audit_batches",
        "audit_api",
        "audit_credentials",
        "audit_queues",
        "audit_prunes",
        "queue_depth",
        "stuck_jobs",
    ] {
        let line = README.lines().find(|line| line.starts_with(&format!("| `{view}`"))).expect("the view is described");
        let columns = line.split('|').nth(3).expect("a third cell");
        let mut depth = 0_i32;
        // What stands in parentheses are values.
        let outside: String = columns
            .chars()
            .filter(|c| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth == 0 && *c != ')'
            })
            .collect();
        let told: Vec<&str> = outside.split('`').skip(1).step_by(2).collect();
        let query = format!("SELECT name FROM pragma_table_info('{view}') ORDER BY cid");
        let rows = binary.run(&["sql", &query, "-o", "json"]).success().json();
        let real: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(told, real, "{view}");
    }
}

/// The lines of the shell blocks below a heading, without their comments.
fn commands(heading: &str) -> Vec<Vec<String>> {
    let section = README.split("\n## ").find(|section| section.lines().next() == Some(heading)).expect("the section");
    let mut within = false;
    let lines = section.lines().filter(|line| {
        let fence = line.starts_with("```");
        within = if fence { *line == "```sh" } else { within };
        within && !fence
    });
    let words = |line: &str| line.split('#').next().unwrap().split_whitespace().map(str::to_owned).collect();
    lines.map(words).filter(|words: &Vec<String>| !words.is_empty()).collect()
}

#[test]
fn the_commands_for_operators_do_what_they_say() {
    let binary = database();
    for tag in 4..=8 {
        binary.run(&["enqueue", "quay.io/org/app:1.2", &format!("registry.example.com/app:{tag}")]).success();
    }
    for heading in ["Queues and limits", "Retention", "Backup and restore"] {
        let commands = commands(heading);
        assert!(commands.len() >= 2, "{heading}: {commands:?}");
        for command in commands {
            let words: Vec<String> =
                command.iter().map(|word| word.replace("/backup", &binary.home().display().to_string())).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(words[0], "freightliner");
            binary.run(&words[1..]).success();
        }
    }
    assert!(README.matches("\n- its queue `nightly` is paused").count() == 1, "the example of `jobs why`");
    binary.run(&["db", "check"]).success();
}

#[test]
fn a_queue_moves_to_postgresql_as_it_stands_there() {
    let Some(target) = Database::postgres() else { return };
    let binary = database();
    let commands = commands("From SQLite to PostgreSQL");
    assert_eq!(commands.len(), 1, "{commands:?}");
    let place = |word: &String| match word.split(':').next() {
        Some("sqlite") => binary.database().url(),
        Some("postgres") => target.url(),
        _ => word.clone(),
    };
    let words: Vec<String> = commands[0].iter().map(place).collect();
    binary.run(&words[1..].iter().map(String::as_str).collect::<Vec<_>>()).success();
    let jobs = "SELECT count(*) AS n FROM jobs";
    let there = binary.run(&["--database", &target.url(), "sql", jobs]).success().text();
    assert_eq!(there, binary.run(&["sql", jobs]).success().text());
}
