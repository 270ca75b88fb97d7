//! `sqlx-data.json` is the checked manifest of every statement: what the freshly migrated database says of it.

use crate::support::database::Database;
use freightliner::clock::Clock;
use freightliner::store::{Store, statements};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Column, ConnectOptions, Either, Executor, SqlSafeStr, TypeInfo};

/// Describes every statement of the store on a fresh database, and compares with the file; with FREIGHTLINER_PREPARE=1 writes
/// the file instead.
#[tokio::test]
async fn every_statement_is_described() {
    let database = Database::sqlite();
    Store::open(&database.url().parse().unwrap(), Clock::System).await.unwrap().close().await;
    let mut connection = SqliteConnectOptions::new().filename(database.file()).connect().await.unwrap();
    let mut described = serde_json::Map::new();
    for (name, text) in statements() {
        let found = (&mut connection)
            .describe(text.into_sql_str())
            .await
            .unwrap_or_else(|error| panic!("{name} is not understood: {error}"));
        let parameters = match found.parameters() {
            None => 0,
            Some(Either::Left(types)) => types.len(),
            Some(Either::Right(count)) => count,
        };
        let columns: Vec<Value> = found
            .columns()
            .iter()
            .enumerate()
            .map(|(index, column)| {
                json!({"name": column.name(), "type": column.type_info().name(), "nullable": found.nullable(index)})
            })
            .collect();
        let hash = hex::encode(Sha256::digest(text));
        let statement = json!({"sha256": hash, "sqlite": {"parameters": parameters, "columns": columns}});
        assert!(described.insert((*name).to_owned(), statement).is_none(), "two statements are called {name}");
    }
    let described = format!("{}\n", serde_json::to_string_pretty(&Value::Object(described)).unwrap());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/sqlx-data.json");
    if std::env::var_os("FREIGHTLINER_PREPARE").is_some() {
        std::fs::write(file, described).unwrap();
        return;
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(written == described, "sqlx-data.json is out of date: run scripts/prepare and commit it");
}
