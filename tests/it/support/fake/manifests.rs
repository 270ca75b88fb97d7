//! Manifests and the referrers API.

use super::exchange::Exchange;
use super::flow::Answer;
use crate::support::content::Algorithm;
use serde_json::{Value, json};
use std::io;

/// GET, HEAD and DELETE of a manifest. An Accept that does not name its type finds nothing, as at Distribution.
pub fn read_or_delete(exchange: &Exchange, name: &str, reference: &str) -> Answer {
    let shared = &exchange.shared;
    let found = shared.state().manifest(name, reference);
    let Some((digest, (media_type, bytes))) = found else {
        return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    if exchange.method == "DELETE" {
        if !shared.options.deletes {
            return Answer::error(405, "UNSUPPORTED", "deletes are disabled");
        }
        let mut state = shared.state();
        let repository = state.repository(name);
        if reference.contains(':') {
            repository.manifests.remove(&digest);
            repository.tags.retain(|_, named| *named != digest);
        } else {
            repository.tags.remove(reference);
        }
        return Answer::empty(202);
    }
    let accept = exchange.header("accept").unwrap_or("*/*");
    let accepts = |wanted: &str| accept.split(',').any(|one| one.split(';').next().unwrap_or("").trim() == wanted);
    if !accepts(&media_type) && !accepts("*/*") && !accepts("application/*") {
        return Answer::error(404, "MANIFEST_UNKNOWN", "the Accept header does not name the manifest's type");
    }
    let mut answer = Answer::with(200, bytes).header("content-type", media_type);
    answer.set_header("etag", shared.options.etags.then(|| format!("\"{digest}\"")));
    answer.set_header("docker-content-digest", shared.options.digest_header.then_some(digest));
    answer
}

pub async fn put(exchange: &mut Exchange, name: &str, reference: &str) -> io::Result<Answer> {
    let shared = exchange.shared.clone();
    let bytes = exchange.body().await?;
    if bytes.len() as u64 > shared.options.manifest_limit {
        return Ok(Answer::error(413, "SIZE_INVALID", "the manifest is too large"));
    }
    let invalid = |message: &str| Ok(Answer::error(400, "MANIFEST_INVALID", message));
    let media_type = exchange.header("content-type").unwrap_or_default().to_owned();
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return invalid("not JSON");
    };
    if value["mediaType"].as_str().is_some_and(|inner| inner != media_type) {
        return invalid("the mediaType is not the Content-Type");
    }
    let quirks = &shared.options.quirks;
    if quirks.wants_media_type && !value["mediaType"].is_string() {
        return invalid("the manifest does not say its media type");
    }
    let fits = |algorithm: Algorithm| algorithm.digest(&bytes) == reference;
    if reference.contains(':') && !Algorithm::of(reference).is_some_and(fits) {
        return Ok(Answer::error(400, "DIGEST_INVALID", "the manifest has another digest"));
    }
    let mut state = shared.state();
    if let (Some(refusal), Some(_)) = (quirks.immutable_tags, state.repository(name).tags.get(reference)) {
        return Ok(Answer::error(refusal.status, refusal.code, refusal.message));
    }
    if let Some(expected) = exchange.header("if-match").filter(|_| shared.options.etags) {
        let held = state.manifest(name, reference).map(|(digest, _)| format!("\"{digest}\""));
        if held.as_deref() != Some(expected) {
            return Ok(Answer::error(412, "MANIFEST_INVALID", "it was replaced meanwhile"));
        }
    }
    let missing = if shared.options.verify_manifests { state.missing(name, &value) } else { Vec::new() };
    if !missing.is_empty() {
        let error = |digest: &String| json!({ "code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": digest });
        return Ok(Answer::json(400, &json!({ "errors": missing.iter().map(error).collect::<Vec<_>>() })));
    }
    let digest = state.put_manifest(name, reference, &media_type, bytes);
    let location = format!("{}/v2/{name}/manifests/{digest}", shared.base_url());
    let mut answer = Answer::empty(201).header("location", location);
    answer.set_header("docker-content-digest", shared.options.digest_header.then_some(digest));
    if let Some(subject) = value["subject"]["digest"].as_str().filter(|_| shared.options.referrers) {
        answer.set_header("oci-subject", Some(subject.to_owned()));
    }
    Ok(answer)
}

/// The referrers API: an index of every manifest whose subject is `digest`.
pub fn referrers(exchange: &Exchange, name: &str, digest: &str) -> Answer {
    if !exchange.shared.options.referrers {
        return Answer::error(404, "UNSUPPORTED", "no referrers API here");
    }
    let wanted = exchange.query.get("artifactType").filter(|_| exchange.shared.options.referrers_filter);
    let mut state = exchange.shared.state();
    if exchange.shared.options.quirks.referrers_need_subject && state.manifest(name, digest).is_none() {
        return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    }
    let mut found = Vec::new();
    for (own, (media_type, bytes)) in &state.repository(name).manifests {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let kind = value["artifactType"].as_str().or_else(|| value["config"]["mediaType"].as_str());
        if value["subject"]["digest"] == digest && wanted.is_none_or(|wanted| kind == Some(wanted)) {
            found.push(json!({
                "mediaType": media_type, "digest": own, "size": bytes.len(),
                "artifactType": kind, "annotations": value["annotations"],
            }));
        }
    }
    let limit = exchange.shared.options.referrers_page;
    let start: usize = exchange.query.get("start").and_then(|start| start.parse().ok()).unwrap_or(0);
    let asked = wanted.map(|wanted| format!("artifactType={wanted}&")).unwrap_or_default();
    let next = start + limit;
    let link =
        (found.len() > next).then(|| format!("</v2/{name}/referrers/{digest}?{asked}start={next}>; rel=\"next\""));
    let found: Vec<Value> = found.into_iter().skip(start).take(limit).collect();
    let media_type = crate::support::image::media::OCI_INDEX;
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": found });
    let mut answer = Answer::json(200, &index);
    answer.set_header("content-type", Some(media_type.to_owned()));
    answer.set_header("oci-filters-applied", wanted.map(|_| "artifactType".to_owned()));
    answer.set_header("link", link);
    answer
}
