//! Blob uploads: begin, mount, send in pieces or whole, ask how far, cancel.

use super::exchange::Exchange;
use super::fault::Fault;
use super::flow::Answer;
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
        return Ok(Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"));
    };
    match exchange.method.as_str() {
        "GET" => Ok(progress(exchange, name, id, 204)),
        "DELETE" => {
            shared.state().uploads.remove(id);
            Ok(Answer::empty(204))
        }
        "PATCH" | "PUT" => match misfit(exchange, id, received) {
            Some(refusal) => Ok(refusal),
            None => append(exchange, name, id).await,
        },
        _ => Ok(Answer::error(405, "UNSUPPORTED", "method not allowed")),
    }
}

/// POST: mounts when it can, else begins an upload.
async fn begin(exchange: &mut Exchange, name: &str) -> io::Result<Answer> {
    let shared = exchange.shared.clone();
    exchange.body().await?;
    let (mount, from) = (exchange.query.get("mount"), exchange.query.get("from"));
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

/// Why a PATCH or PUT does not fit what was received so far.
fn misfit(exchange: &Exchange, id: &str, received: u64) -> Option<Answer> {
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
        let least = shared.options.chunk_min_length;
        let short = shared.state().uploads.get_mut(id).and_then(|upload| {
            let earlier = upload.last_chunk.replace(length)?;
            least.filter(|least| earlier < *least)
        });
        return Ok(match short {
            Some(_) => Answer::error(416, "SIZE_INVALID", "a chunk before the last one was too small"),
            None => progress(exchange, name, id, 202),
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
    Answer::empty(status)
        .header("location", location)
        .header("range", format!("0-{}", received.saturating_sub(1)))
        .header("docker-upload-uuid", id)
}

/// Changes with every byte, as Distribution's does; escaped, for clients that decode what they should keep.
fn upload_state(id: &str, received: u64) -> String {
    format!("{id}~{received}~%3D")
}
