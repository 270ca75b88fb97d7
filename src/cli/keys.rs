//! `keys`: who may call the API.

use super::error::{Error, Result};
use super::{Context, when};
use crate::access::{ApiKey, Destination, NewKey, Role};
use std::time::Duration;

/// Keys of the API of `serve`.
#[derive(Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it; it is shown this once, and stored nowhere.
    Add(AddArgs),
    /// List keys, revoked and expired ones too.
    List,
    /// Revoke a key, or all keys of a name; it is refused from the next call on.
    Revoke(RevokeArgs),
}

/// What the key is for.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// For people and for the audit trail; several keys may have one name, for rotation.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may do: read, enqueue, operate or admin.
    #[arg(long, value_name = "ROLE", default_value = "enqueue", value_parser = str::parse::<Role>)]
    role: Role,
    /// It may write to this destination alone, HOST[/PATH], and below it; may be repeated.
    #[arg(long = "destination", value_name = "PLACE", value_parser = str::parse::<Destination>)]
    destinations: Vec<Destination>,
    /// It is good for nothing after this time, for example 90d [default: never].
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    expires_in: Option<Duration>,
}

/// Which key.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// The id of a key, or a name.
    #[arg(value_name = "ID|NAME")]
    which: String,
}

/// Does it.
///
/// # Errors
/// Something that was typed is wrong, there is no such key, or the database cannot be used.
pub async fn run(context: &mut Context, command: KeysCommand) -> Result {
    match command {
        KeysCommand::Add(arguments) => add(context, arguments).await,
        KeysCommand::List => list(context).await,
        KeysCommand::Revoke(RevokeArgs { which }) => revoke(context, &which).await,
    }
}

async fn add(context: &mut Context, arguments: AddArgs) -> Result {
    let AddArgs { name, role, destinations, expires_in } = arguments;
    let destinations = (!destinations.is_empty()).then_some(destinations);
    let expires_at = expires_in.map(|after| context.clock.now().plus(after));
    let (row, key) = NewKey::generate(&name, role, destinations, expires_at).map_err(Error::usage)?;
    let id = row.id.clone();
    let store = context.store().await?;
    store.key_add(row, &context.actor()).await?;
    if context.format().is_json() {
        let expires_at = expires_at.map(crate::clock::UnixMillis::to_rfc3339);
        let row = serde_json::json!({"id": id, "name": name, "role": role, "expires_at": expires_at, "key": key});
        return context.output.json(&row);
    }
    context.output.line(&key)?;
    context.output.flush()?;
    context.notes.note(&format!("key {id} may {role}; keep it now, it is shown this once"));
    Ok(())
}

async fn list(context: &mut Context) -> Result {
    let keys = context.store().await?.keys(None).await?;
    if context.format().is_json() {
        return context.output.rows(&keys);
    }
    if keys.is_empty() {
        context.notes.note("there is no key: see `freightliner keys add --help`");
        return Ok(());
    }
    let now = context.clock.now();
    let state = |key: &ApiKey| match (key.revoked_at, key.is_valid(now)) {
        (Some(at), _) => format!("revoked {}", at.to_rfc3339()),
        (None, true) => "valid".to_owned(),
        (None, false) => "expired".to_owned(),
    };
    let rows = keys.iter().map(|key| {
        let places = key.destinations.iter().flatten().cloned().map(String::from).collect::<Vec<_>>().join(", ");
        let end = key.expires_at.map(crate::clock::UnixMillis::to_rfc3339).unwrap_or_default();
        vec![
            key.id.clone(),
            key.name.clone(),
            key.role.to_string(),
            state(key),
            places,
            key.created_at.to_rfc3339(),
            end,
        ]
    });
    context.output.table(&["ID", "NAME", "ROLE", "STATE", "DESTINATIONS", "CREATED", "EXPIRES"], rows)
}

async fn revoke(context: &mut Context, which: &str) -> Result {
    let actor = context.actor();
    let store = context.store().await?;
    let revoked = store.key_revoke(which, &actor).await?;
    if revoked == 0 {
        let known = store.keys(None).await?.iter().any(|key| key.id == which || key.name == which);
        if !known {
            return Err(Error::failed("not_found", format!("there is no key `{which}`")).hint("freightliner keys list"));
        }
    }
    if context.format().is_json() {
        return context.output.compact(&serde_json::json!({"revoked": revoked}));
    }
    context.output.line(&format!("{revoked} revoked"))
}
