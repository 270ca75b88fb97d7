//! Blob uploads: begin, mount, send in pieces or whole, ask how far, cancel.

use super::exchange::Exchange;
use super::fault::Fault;
use super::flow::Answer;
use super::quirks::{Chunks, MountRule};
use super::store::Upload;
use super::{LocationStyle, Shared};
use std::io;

pub async fn route(exchange: &mut Exchange, name: &str, id: &str) -> io::Result<Answer> {
    if exchange.method == "POST" && id.is_empty() {
        return begin(exchange, name).await;
    }
    let shared = exchange.shared.clone();
    let Some(received) = shared.state().uploads.get(id).filter(|upload| upload.repository == name).map(|u| u.received)
    else {
        let code = if shared.options.quirks.cut_is_final { "BLOB_UPLOAD_INVALID" } else { "BLOB_UPLOAD_UNKNOWN" };
        return Ok(Answer::error(404, code, "blob upload unknown to registry"));
    };
    if let Some(refusal) = unwanted(exchange, id) {
        return Ok(refusal);
    }
    match exchange.method.as_str() {
        "GET" => Ok(progress(exchange, name, id, 204)),
        "DELETE" => {
            shared.state().uploads.remove(id);
            Ok(Answer::empty(204))
        }
        "PATCH" | "PUT" => match misfit(exchange, id, received) {
            Some(refusal) => Ok(refusal),
            None => {
                let answer = append(exchange, name, id).await;
                if answer.is_err() && shared.options.quirks.cut_is_final {
                    shared.state().uploads.remove(id);
                }
                answer
            }
        },
        _ => Ok(Answer::error(405, "UNSUPPORTED", "method not allowed")),
    }
}

/// POST: mounts when it can, else begins an upload.
async fn begin(exchange: &mut Exchange, name: &str) -> io::Result<Answer> {
    let shared = exchange.shared.clone();
    exchange.body().await?;
    let (mount, from) = (exchange.query.get("mount"), exchange.query.get("from"));
    if let Some(refusal) = unmounted(exchange, name) {
        return Ok(refusal);
    }
    let mut state = shared.state();
    if let (Some(digest), Some(from), true) = (mount, from, shared.options.mounts) {
        let known = state.repositories.get(from).and_then(|held| held.blobs.get(digest)).cloned();
        if let Some(content) = known {
            state.put_blob(name, digest, content);
            return Ok(created(&shared, name, digest));
        }
    }
    state.uploads_begun += 1;
    let id = format!("upload-{}", state.uploads_begun);
    let upload = Upload::new(name, !shared.options.discard_uploads, exchange.query.get("digest-algorithm"));
    state.uploads.insert(id.clone(), upload);
    drop(state);
    let mut answer = progress(exchange, name, &id, 202);
    answer.set_header("oci-chunk-min-length", shared.options.chunk_min_length.map(|bytes| bytes.to_string()));
    Ok(answer)
}

/// Why nothing can be mounted, or uploaded, to this repository.
fn unmounted(exchange: &Exchange, name: &str) -> Option<Answer> {
    let quirks = &exchange.shared.options.quirks;
    if quirks.only_repository.as_ref().is_some_and(|only| only != name) {
        let message =
            format!("The repository with name '{name}' does not exist in the registry with id '123456789012'");
        return Some(Answer::error(404, "NAME_UNKNOWN", &message));
    }
    let namespace = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    exchange.query.get("mount")?;
    match (quirks.mounts, exchange.query.get("from")) {
        (MountRule::NeedsFrom, None) => Some(Answer::error(400, "NAME_INVALID", "mount needs from")),
        (MountRule::SameNamespace, Some(from)) if namespace(from) != namespace(name) => {
            Some(Answer::error(403, "DENIED", "requested access to the resource is denied"))
        }
        _ => None,
    }
}

/// Why a PATCH or PUT is not taken, whatever was received so far.
fn unwanted(exchange: &Exchange, id: &str) -> Option<Answer> {
    let (quirks, is_patch) = (&exchange.shared.options.quirks, exchange.method == "PATCH");
    if !is_patch && exchange.method != "PUT" {
        return None;
    }
    let size: u64 = exchange.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if is_patch && quirks.chunks == Chunks::Refused {
        return Some(Answer::error(405, "UNSUPPORTED", "chunked uploads are not supported"));
    }
    let is_large = quirks.body_limit.is_some_and(|limit| size > limit);
    if is_large || (is_patch && quirks.chunk_bytes.is_some_and(|(_, most)| size > most)) {
        return Some(Answer::error(413, "SIZE_INVALID", "the body is too large"));
    }
    let mut state = exchange.shared.state();
    let upload = state.uploads.get_mut(id)?;
    if quirks.chunks == Chunks::Overwriting && size > 0 {
        upload.restart();
    }
    upload.parts += u64::from(is_patch);
    quirks
        .max_parts
        .is_some_and(|most| upload.parts > most)
        .then(|| Answer::error(400, "SIZE_INVALID", "too many parts"))
}

/// Why a PATCH or PUT does not fit what was received so far.
fn misfit(exchange: &Exchange, id: &str, received: u64) -> Option<Answer> {
    if exchange.shared.options.quirks.chunks == Chunks::Overwriting {
        return None;
    }
    let state = exchange.raw_query.split('&').find_map(|field| field.strip_prefix("_state="));
    match state {
        None => {
            return Some(Answer::error(400, "BLOB_UPLOAD_INVALID", "the Location's query was not kept"));
        }
        Some(state) if state != upload_state(id, received) => {
            return Some(Answer::error(416, "RANGE_INVALID", "the Location is not the newest"));
        }
        Some(_) => {}
    }
    let range = exchange.header("content-range")?;
    let start = range.split_once('-').and_then(|(start, _)| start.parse::<u64>().ok());
    (start != Some(received)).then(|| {
        Answer::error(416, "RANGE_INVALID", "the chunk does not begin where the last one ended")
            .header("range", format!("0-{}", received.saturating_sub(1)))
    })
}

/// Takes the body as it comes (what arrived before a cut is kept), and for a PUT closes the upload.
async fn append(exchange: &mut Exchange, name: &str, id: &str) -> io::Result<Answer> {
    let shared = exchange.shared.clone();
    let digest = exchange.query.get("digest").map(str::to_owned);
    let mut length = 0;
    let wants_sha512 = digest.as_ref().is_some_and(|digest| digest.starts_with("sha512:"));
    if let Some(upload) = shared.state().uploads.get_mut(id).filter(|upload| wants_sha512 && upload.received == 0) {
        upload.sha512 = Some(crate::support::content::Hasher::new(crate::support::content::Algorithm::Sha512));
    }
    while let Some(bytes) = exchange.next_bytes(length).await? {
        length += bytes.len() as u64;
        let mut state = shared.state();
        let Some(upload) = state.uploads.get_mut(id) else {
            return Ok(Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "cancelled meanwhile"));
        };
        upload.append(&bytes);
    }
    if exchange.method == "PATCH" {
        let quirks = &shared.options.quirks;
        let least = shared.options.chunk_min_length.or(quirks.chunk_bytes.map(|(least, _)| least));
        let short = shared.state().uploads.get_mut(id).and_then(|upload| {
            let earlier = upload.last_chunk.replace(length)?;
            least.filter(|least| earlier < *least)
        });
        return Ok(match short {
            Some(_) => Answer::error(416, "SIZE_INVALID", "a chunk before the last one was too small"),
            None => progress(exchange, name, id, quirks.patch_status.unwrap_or(202)),
        });
    }
    let Some(digest) = digest else {
        return Ok(Answer::error(400, "DIGEST_INVALID", "no digest was given"));
    };
    let mut state = shared.state();
    // A wrong digest ends the upload too.
    let finished = state.uploads.remove(id).and_then(|upload| upload.finish(&digest));
    Ok(match finished {
        Some(content) => {
            state.put_blob(name, &digest, content);
            created(&shared, name, &digest)
        }
        None => Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
    })
}

fn created(shared: &Shared, name: &str, digest: &str) -> Answer {
    let location = format!("{}/v2/{name}/blobs/{digest}", shared.base_url());
    let mut answer = Answer::empty(201).header("location", location);
    answer.set_header("docker-content-digest", shared.options.digest_header.then(|| digest.to_owned()));
    answer
}

/// Where to go on, and from which byte.
fn progress(exchange: &Exchange, name: &str, id: &str, status: u16) -> Answer {
    let shared = &exchange.shared;
    let received = shared.state().uploads.get(id).map_or(0, |upload| upload.received);
    let tail = format!("{id}?_state={}", upload_state(id, received));
    let path = format!("/v2/{name}/blobs/uploads/{tail}");
    let fault = exchange.fault.as_ref();
    let location = match (fault, fault.and_then(Fault::location_style).unwrap_or(shared.options.location)) {
        (Some(Fault::ForeignLocation(base)), _) => format!("{base}{path}"),
        (_, LocationStyle::Absolute) => format!("{}{path}", shared.base_url()),
        (_, LocationStyle::AbsolutePath) => path,
        (_, LocationStyle::Relative) => tail,
    };
    let quirks = &shared.options.quirks;
    // Whoever overwrites says what it was sent, not what it has.
    let said = exchange.header("content-range").filter(|_| quirks.chunks == Chunks::Overwriting);
    let range = match said.and_then(|range| range.split_once('-')) {
        Some((_, last)) => format!("0-{last}"),
        None if quirks.hides_offset => "0-0".to_owned(),
        None => format!("0-{}", received.saturating_sub(1)),
    };
    Answer::empty(status).header("location", location).header("range", range).header("docker-upload-uuid", id)
}

/// Changes with every byte, as Distribution's does; escaped, for clients that decode what they should keep.
fn upload_state(id: &str, received: u64) -> String {
    format!("{id}~{received}~%3D")
}
