//! The mirrors of the configuration: listed, explained, run.

use super::App;
use super::auth::Caller;
use super::body::{Path, Query};
use super::error::ApiError;
use super::legacy::start;
use crate::job::batch::BatchKind;
use crate::mirror::copies::Copies;
use crate::mirror::{Rule, Rules, listing};
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

fn row(name: &str, rules: &Rules) -> Value {
    let mut row = rules.rules.first().and_then(|rule| serde_json::to_value(rule).ok()).unwrap_or_default();
    row["name"] = json!(name);
    row
}

/// `GET /mirrors`.
pub async fn list(Extract(app): Extract<Arc<App>>) -> Json<Value> {
    let mirrors: Vec<Value> = app.parts.settings.mirrors.iter().map(|(name, rules)| row(name, rules)).collect();
    Json(json!({"count": mirrors.len(), "mirrors": mirrors}))
}

fn find<'a>(app: &'a App, name: &str) -> Result<&'a Rules, ApiError> {
    app.parts.settings.mirrors.get(name).ok_or_else(|| ApiError::missing("Mirror not found"))
}

/// `GET /mirrors/{name}`.
///
/// # Errors
/// 404.
pub async fn show(Extract(app): Extract<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(row(&name, find(&app, &name)?)))
}

/// Which repositories to explain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Only those whose name holds this text.
    repository: Option<String>,
}

/// `GET /mirrors/{name}/explain`: for each repository and tag, kept or dropped, by which clause. Asks the registries.
///
/// # Errors
/// 404; 502 when the repositories cannot be listed.
pub async fn explain(
    Extract(app): Extract<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Value>, ApiError> {
    let rules = find(&app, &name)?;
    let mut rows = Vec::new();
    for rule in &rules.rules {
        explain_rule(&app, rule, query.repository.as_deref(), &mut rows).await?;
    }
    Ok(Json(json!({"mirror": name, "count": rows.len(), "decisions": rows})))
}

async fn explain_rule(app: &App, rule: &Rule, only: Option<&str>, rows: &mut Vec<Value>) -> Result<(), ApiError> {
    let engine = &app.parts.engine;
    let source = engine.session(rule.options.src_tls_verify, Arc::default());
    let destination = engine.session(rule.options.dest_tls_verify, Arc::default());
    let found = listing::repositories(&source, rule).await;
    let found = found.map_err(|error| ApiError::new(StatusCode::BAD_GATEWAY, error.to_string()))?;
    for repository in found.into_iter().filter(|decision| only.is_none_or(|part| decision.name.contains(part))) {
        let of = format!("{}/{}", rule.registry, repository.name);
        let (kept, clause) = (repository.kept, &repository.clause);
        rows.push(json!({"repository": of, "tag": null, "kept": kept, "clause": clause, "destinations": []}));
        if !kept {
            continue;
        }
        let decided = match Copies::look(&source, &destination, rule, &repository.name, &app.clock).await {
            Ok(copies) => copies.all(),
            Err(unlisted) => Err(unlisted),
        };
        match decided {
            Ok(decided) => rows.extend(decided.iter().map(|tag| {
                let targets: Vec<&str> = tag.jobs.iter().map(|job| job.destination.as_str()).collect();
                let (kept, clause) = (tag.decision.kept, &tag.decision.clause);
                json!({"repository": of, "tag": tag.decision.name, "kept": kept, "clause": clause, "destinations": targets})
            })),
            Err((_, error)) => rows.push(json!({"repository": of, "tag": null, "kept": false, "error": error})),
        }
    }
    Ok(())
}

/// `POST /mirrors/{name}/run`: 202 and the batch.
///
/// # Errors
/// 403: the key is limited to some destinations. 404.
pub async fn run(
    Extract(app): Extract<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.may_write_anywhere()?;
    let rules = find(&app, &name)?.clone();
    let ends = rules.ends();
    start(&app, &caller, BatchKind::Mirror, Some(name), ends, rules).await
}
