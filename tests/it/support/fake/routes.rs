//! From a request to an answer: the log, authentication, faults, then the noun that was asked for.

use super::exchange::{Exchange, Query};
use super::fault::{self, Fault};
use super::flow::{self, Answer};
use super::{Ranges, Shared, auth, manifests, pages, uploads};
use crate::support::content::Content;
use crate::support::server::Answered;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;
use std::io;
use std::sync::Arc;

/// Answers one request.
pub async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answered {
    let mut exchange = Exchange::begin(shared.clone(), request);
    let mut answer = pass(&mut exchange).await?;
    let more = shared.options.quirks.headers.iter();
    answer.headers.extend(more.map(|(name, value)| ((*name).to_owned(), value.clone())));
    if matches!(exchange.fault, Some(Fault::LoseAnswer)) {
        return Err(io::Error::other("answer lost by a scripted fault"));
    }
    // What is left unread would be taken for the next request.
    while exchange.next_bytes(0).await?.is_some() {}
    exchange.answered(answer.status);
    Ok(flow::send(&shared, answer, exchange.fault.as_ref()))
}

/// Authentication, then the fault, then the route.
async fn pass(exchange: &mut Exchange) -> io::Result<Answer> {
    let shared = exchange.shared.clone();
    let authorization = exchange.header("authorization").map(str::to_owned);
    if exchange.path != "/token" {
        let scopes = scopes(&exchange.method, &exchange.path, &exchange.query);
        if let Some(refusal) = auth::refuse(&shared, authorization.as_deref(), &scopes) {
            return Ok(refusal);
        }
    }
    exchange.fault =
        fault::take(&mut shared.faults.lock().expect("no handler panicked"), &exchange.method, &exchange.target);
    match exchange.fault.clone() {
        Some(Fault::Status { code, headers, body }) => {
            exchange.body().await?;
            let mut answer = Answer::with(code, body);
            answer.headers = headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
            return Ok(answer);
        }
        Some(Fault::TooManyRequests { retry_after }) => {
            exchange.body().await?;
            let mut answer = Answer::error(429, "TOOMANYREQUESTS", "slow down");
            answer.set_header("retry-after", retry_after);
            return Ok(answer);
        }
        Some(Fault::RedirectTo(base)) => {
            return Ok(Answer::empty(307).header("location", format!("{base}{}", exchange.target)));
        }
        Some(Fault::DropConnection) => return Err(io::Error::other("dropped by a scripted fault")),
        Some(Fault::HoldUntil(name)) => shared.gate(&name).pass().await,
        _ => {}
    }
    if exchange.path == "/token" {
        let form = Query::parse(&exchange.body().await?);
        return Ok(auth::issue(&shared, &exchange.method, authorization.as_deref(), &exchange.query, &form));
    }
    route(exchange).await
}

/// Splits `/v2/<name>/<noun>/<rest>`; names may contain slashes.
fn split(path: &str) -> Option<(&str, &'static str, &str)> {
    let path = path.strip_prefix("/v2/")?;
    ["blobs/uploads", "blobs", "manifests", "tags", "referrers"].into_iter().find_map(|noun| {
        let at = path.rfind(&format!("/{noun}/"))?;
        Some((&path[..at], noun, &path[at + noun.len() + 2..]))
    })
}

/// What a token must allow for this request.
fn scopes(method: &str, path: &str, query: &Query) -> Vec<String> {
    if path == "/v2/_catalog" {
        return vec!["registry:catalog:*".to_owned()];
    }
    let Some((name, ..)) = split(path) else {
        return Vec::new();
    };
    let action = match method {
        "GET" | "HEAD" if !path.contains("/blobs/uploads/") => "pull",
        "DELETE" if !path.contains("/blobs/uploads/") => "delete",
        _ => "pull,push",
    };
    let from = query.get("from").filter(|from| *from != name).map(|from| format!("repository:{from}:pull"));
    [format!("repository:{name}:{action}")].into_iter().chain(from).collect()
}

async fn route(exchange: &mut Exchange) -> io::Result<Answer> {
    let shared = exchange.shared.clone();
    let path = exchange.path.clone();
    match path.as_str() {
        "/v2/" | "/v2" => return Ok(Answer::json(200, &json!({}))),
        "/v2/_catalog" => {
            let names = shared.state().repositories.keys().cloned().collect();
            let limit = shared.options.page_limit;
            return Ok(pages::page(&path, &exchange.query, names, limit, "repositories", &[]));
        }
        _ => {}
    }
    let Some((name, noun, rest)) = split(&path) else {
        return Ok(Answer::error(404, "NAME_INVALID", "no such route"));
    };
    match noun {
        "blobs/uploads" => uploads::route(exchange, name, rest).await,
        "manifests" if exchange.method == "PUT" => manifests::put(exchange, name, rest).await,
        "manifests" => Ok(manifests::read_or_delete(exchange, name, rest)),
        "blobs" => Ok(blob(exchange, name, rest)),
        "tags" => {
            let state = shared.state();
            let Some(repository) = state.repositories.get(name) else {
                return Ok(Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry"));
            };
            let names = repository.tags.keys().cloned().collect();
            let limit = shared.options.page_limit;
            Ok(pages::page(&path, &exchange.query, names, limit, "tags", &[("name", name)]))
        }
        _ => Ok(manifests::referrers(exchange, name, rest)),
    }
}

/// GET, HEAD and DELETE of a blob; one range of bytes.
fn blob(exchange: &Exchange, name: &str, digest: &str) -> Answer {
    let shared = &exchange.shared;
    let held = shared.state().repositories.get(name).and_then(|held| held.blobs.get(digest)).cloned();
    let Some(content) = held else {
        return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    if exchange.method == "DELETE" {
        if !shared.options.deletes {
            return Answer::error(405, "UNSUPPORTED", "deletes are disabled");
        }
        shared.state().repository(name).blobs.remove(digest);
        return Answer::empty(202);
    }
    if exchange.method == "GET" && matches!(content, Content::Discarded { .. }) {
        return Answer::error(500, "UNKNOWN", "the fake was told to discard uploads");
    }
    let size = content.len();
    let ranges = shared.options.ranges;
    let ignored = ranges == Ranges::Ignored || matches!(exchange.fault, Some(Fault::NoPart));
    let range = exchange.header("range").filter(|_| !ignored);
    let answer = match range.map(|range| parse_range(range, size)) {
        None => Answer::with(200, content),
        Some(None) => return Answer::empty(416).header("content-range", format!("bytes */{size}")),
        Some(Some((start, end))) => {
            let sent = if ranges == Ranges::Given { start..end } else { 0..end - start };
            let said = if ranges == Ranges::Wrong { sent.clone() } else { start..end };
            Answer::with(206, content.slice(sent))
                .header("content-range", format!("bytes {}-{}/{size}", said.start, said.end - 1))
        }
    };
    let mut answer = answer.header("content-type", "application/octet-stream").header("accept-ranges", "bytes");
    answer.set_header("etag", Some(format!("\"{digest}\"")));
    answer.set_header("docker-content-digest", shared.options.digest_header.then(|| digest.to_owned()));
    answer
}

/// `bytes=start-` or `bytes=start-last`, as start and one after the last; None when it cannot be satisfied.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start = start.parse().ok().filter(|start| *start < size)?;
    let end = last.parse::<u64>().map_or(size, |last| (last + 1).min(size));
    (start < end).then_some((start, end))
}
