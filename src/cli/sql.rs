//! `sql QUERY`: one read-only query, as a table or JSON. What is read-only is decided by the store.

use super::error::Result;
use super::{Context, when};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::time::Duration;

/// Run one read-only query.
#[derive(Debug, clap::Args)]
pub struct SqlArgs {
    /// SELECT, WITH, VALUES or EXPLAIN; for example "SELECT * FROM audit_jobs LIMIT 5".
    #[arg(value_name = "QUERY")]
    query: String,
    /// Most rows that are printed.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Stop the query after this time.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = when::duration)]
    timeout: Duration,
}

/// Does it.
///
/// # Errors
/// The query is refused, wrong, or takes too long.
pub async fn run(context: &mut Context, arguments: &SqlArgs) -> Result {
    let store = context.store().await?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let table = store.query(&arguments.query, limit, arguments.timeout).await?;
    if context.format().is_json() {
        let columns = unique(&table.columns);
        context.output.rows(table.rows.iter().map(|row| Row { columns: &columns, row }))?;
    } else {
        let header: Vec<_> = table.columns.iter().map(String::as_str).collect();
        context.output.table(&header, table.rows.iter().map(|row| row.iter().map(cell).collect()))?;
    }
    context.output.flush()?;
    if table.truncated {
        context.notes.note(&format!("only the first {limit} rows; more by --limit"));
    }
    Ok(())
}

fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names for an object: a column that has the name of another one gets a number.
fn unique(columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = column.clone();
        let mut number = 1;
        while names.contains(&name) {
            number += 1;
            name = format!("{column}_{number}");
        }
        names.push(name);
    }
    names
}

/// One row as an object, its columns in the order of the query.
struct Row<'a> {
    columns: &'a [String],
    row: &'a [serde_json::Value],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.row.len()))?;
        for (name, value) in self.columns.iter().zip(self.row) {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_the_order_and_every_column() {
        let columns = unique(&["z".into(), "a".into(), "z".into(), "z_2".into(), "z".into()]);
        assert_eq!(columns, ["z", "a", "z_2", "z_2_2", "z_3"]);
        let row = [1.into(), "x".into(), serde_json::Value::Null, 2.into(), 3.into()];
        let text = serde_json::to_string(&Row { columns: &columns, row: &row }).unwrap();
        assert_eq!(text, r#"{"z":1,"a":"x","z_2":null,"z_2_2":2,"z_3":3}"#);
    }
}
