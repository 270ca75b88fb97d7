//! `sqlx-data.json` is the checked manifest of every statement: what freshly migrated databases say of it.

use crate::support::database::Database;
use freightliner::clock::Clock;
use freightliner::store::{Store, statements};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Column, Connection, Database as Driver, Describe, Either, Executor, SqlSafeStr, TypeInfo};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sqlx-data.json");

/// Describes every statement of the store on fresh databases, and compares with the file; with FREIGHTLINER_PREPARE=1 writes
/// the file instead.
#[tokio::test]
async fn every_statement_is_described() {
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    let known: Value = serde_json::from_str(&written).unwrap_or_default();
    let mut described = Map::new();
    for (engine, statements) in statements() {
        for (name, text) in statements {
            let entry = described.entry(name).or_insert_with(|| json!({}));
            let hash = hex::encode(Sha256::digest(text));
            assert!(entry.get(engine).is_none(), "two statements are called {name}");
            entry[engine] = json!({"sha256": hash});
        }
    }
    for database in Database::all() {
        let url = database.url();
        Store::open(&url.parse().unwrap(), Clock::System).await.unwrap().close().await;
        if database.is_postgres() {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let text = |name: &str, text: &str| format!("{name} is not understood: {text}");
            for (name, statement) in statements()[1].1.clone() {
                let found = (&mut connection).describe(statement.into_sql_str()).await;
                describe(
                    &mut described,
                    name,
                    "postgres",
                    &found.unwrap_or_else(|error| panic!("{}", text(name, &error.to_string()))),
                );
            }
        } else {
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            for (name, statement) in statements()[0].1.clone() {
                let found = (&mut connection).describe(statement.into_sql_str()).await;
                describe(
                    &mut described,
                    name,
                    "sqlite",
                    &found.unwrap_or_else(|error| panic!("{name} is not understood: {error}")),
                );
            }
        }
    }
    // Where a database cannot be had (which was said), what is written of it is believed as far as the text is the same.
    for (name, entry) in &mut described {
        for (engine, statement) in entry.as_object_mut().unwrap() {
            if statement.get("columns").is_none() && known[name][engine]["sha256"] == statement["sha256"] {
                *statement = known[name][engine].clone();
            }
        }
    }
    let described = format!("{}\n", serde_json::to_string_pretty(&Value::Object(described)).unwrap());
    if std::env::var_os("FREIGHTLINER_PREPARE").is_some() {
        std::fs::write(FILE, described).unwrap();
        return;
    }
    assert!(written == described, "sqlx-data.json is out of date: run scripts/prepare and commit it");
}

/// Adds what the database says: parameters (their types, or how many there are) and columns.
fn describe<DB: Driver>(described: &mut Map<String, Value>, name: &str, engine: &str, found: &Describe<DB>) {
    let parameters = match found.parameters() {
        None => json!(0),
        Some(Either::Left(types)) => types.iter().map(|kind| json!(kind.name())).collect(),
        Some(Either::Right(count)) => json!(count),
    };
    let columns: Vec<Value> = found
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            json!({"name": column.name(), "type": column.type_info().name(), "nullable": found.nullable(index)})
        })
        .collect();
    described[name][engine]["parameters"] = parameters;
    described[name][engine]["columns"] = columns.into();
}
