//! `delete REF`: delete a tag, a digest, or with `--all` every tag of a repository.
//!
//! By tag first, because a registry that can do that removes only the tag. Many (Distribution 2 among them) cannot: there
//! the digest is what can be deleted, and with it goes every other tag that names it. So these are looked for before the
//! question is asked, and named in it.

use super::Context;
use super::error::{Error, Result};
use super::report::count;
use crate::mirror::listing;
use crate::oci::{Digest, ImageReference, Reference, Repository, Selector, Tag};
use crate::registry::Session;
use clap::builder::BoolishValueParser;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};

/// Most other tags that are compared: each costs a request.
const TAGS_COMPARED_MOST: usize = 500;
/// Answers to a deletion by tag that mean "not by tag".
const NOT_BY_TAG: [u16; 5] = [400, 404, 405, 415, 501];
/// What is done, in the answer for programs.
const BY_TAG: &str = "tag";
const BY_DIGEST: &str = "digest";

/// Delete an image.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// The image: HOST[:PORT]/REPO[:TAG] or HOST[:PORT]/REPO@DIGEST.
    #[arg(value_name = "REF")]
    reference: String,
    /// Do not ask.
    #[arg(long)]
    force: bool,
    /// Say what would be deleted; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Every tag of the repository; needs --force or --dry-run.
    #[arg(long)]
    all: bool,
    /// Verify TLS; false also allows plain HTTP [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = BoolishValueParser::new())]
    tls_verify: Option<bool>,
}

/// What is deleted.
#[derive(Debug, Clone, Serialize)]
struct Doomed {
    repository: String,
    tag: Option<String>,
    digest: String,
    /// Other tags that name the digest.
    shared_with: Vec<String>,
    /// `tag` or `digest`; null when nothing was deleted.
    deleted_by: Option<&'static str>,
}

/// Does it.
///
/// # Errors
/// Wrong usage; it is not there; nobody said yes; the registry does not delete.
pub async fn run(context: &mut Context, arguments: &DeleteArgs) -> Result {
    let ImageReference::Registry(reference) = context.reference(&arguments.reference)? else {
        return Err(Error::not_implemented("delete from an oci: layout"));
    };
    if arguments.all && !arguments.force && !arguments.dry_run {
        return Err(Error::usage("--all deletes every tag: it needs --force or --dry-run"));
    }
    if !arguments.force && !arguments.dry_run && !std::io::stdin().is_terminal() {
        return Err(Error::usage("there is no terminal to ask on").hint("add --force to delete without being asked"));
    }
    let session = context.session(arguments.tls_verify)?;
    if arguments.all {
        return delete_all(context, &session, &reference.repository, arguments.dry_run).await;
    }
    let doomed = look(&session, &reference).await?;
    if arguments.dry_run {
        return tell(context, "would delete", &doomed);
    }
    if !arguments.force && !confirmed(context, &doomed).await? {
        return Err(Error::failed("cancelled", "nothing was deleted"));
    }
    let by = delete(&session, &reference).await?;
    if by == BY_DIGEST && !doomed.shared_with.is_empty() {
        let tags = doomed.shared_with.join(", ");
        context.notes.note(&format!("the registry deletes digests only: these tags named it too and are gone: {tags}"));
    }
    tell(context, "deleted", &Doomed { deleted_by: Some(by), ..doomed })
}

/// Finds the digest and the other tags that name it.
async fn look(session: &Session, reference: &Reference) -> Result<Doomed> {
    let Reference { repository, tag, digest } = reference;
    if let (Some(tag), Some(digest)) = (tag, digest) {
        let message = format!("both a tag ({tag}) and a digest ({digest}) are given: name the one to delete");
        return Err(Error::usage(message));
    }
    let digest = digest_of(session, repository, &reference.selector())
        .await?
        .ok_or_else(|| Error::failed("absent", format!("{reference} is not there")))?;
    let mut shared_with = Vec::new();
    for other in listing::tags(session, repository, 0).await?.into_iter().take(TAGS_COMPARED_MOST) {
        if tag.as_ref().is_some_and(|tag| tag.as_str() == other) {
            continue;
        }
        let Ok(name) = other.parse::<Tag>() else {
            continue;
        };
        if digest_of(session, repository, &Selector::Tag(name)).await?.as_ref() == Some(&digest) {
            shared_with.push(other);
        }
    }
    let tag = tag.as_ref().map(|tag| tag.as_str().to_owned());
    Ok(Doomed { repository: repository.to_string(), tag, digest: digest.to_string(), shared_with, deleted_by: None })
}

/// The digest of a manifest; None when it is not there.
async fn digest_of(session: &Session, repository: &Repository, selector: &Selector) -> Result<Option<Digest>> {
    if let Selector::Digest(digest) = selector {
        return Ok(session.head_manifest(repository, selector).await?.map(|_| digest.clone()));
    }
    let Some(head) = session.head_manifest(repository, selector).await? else {
        return Ok(None);
    };
    if let Some(digest) = head.digest {
        return Ok(Some(digest));
    }
    // Old registries do not say: the bytes do.
    let fetched = session.get_manifest(repository, selector).await?;
    Ok(Some(Digest::of(crate::oci::Algorithm::Sha256, &fetched.bytes)))
}

/// Deletes the tag, or where the registry cannot do that, the digest that the tag names now.
async fn delete(session: &Session, reference: &Reference) -> Result<&'static str> {
    let Reference { repository, .. } = reference;
    let selector = reference.selector();
    let Selector::Tag(_) = &selector else {
        session.delete_manifest(repository, &selector).await.map_err(explain)?;
        return Ok(BY_DIGEST);
    };
    match session.delete_manifest(repository, &selector).await {
        Ok(()) => return Ok(BY_TAG),
        Err(error) if error.status().is_some_and(|status| NOT_BY_TAG.contains(&status)) => {}
        Err(error) => return Err(error.into()),
    }
    let digest = digest_of(session, repository, &selector)
        .await?
        .ok_or_else(|| Error::failed("absent", format!("{reference} is not there")))?;
    session.delete_manifest(repository, &Selector::Digest(digest)).await.map_err(explain)?;
    Ok(BY_DIGEST)
}

fn explain(error: crate::registry::Error) -> Error {
    let disabled = matches!(error.status(), Some(405 | 501));
    let error = Error::from(error);
    if disabled {
        error.hint("this registry does not delete; Distribution does with REGISTRY_STORAGE_DELETE_ENABLED=true")
    } else {
        error
    }
}

async fn delete_all(context: &mut Context, session: &Session, repository: &Repository, dry_run: bool) -> Result {
    let mut gone = BTreeSet::new();
    for name in listing::tags(session, repository, 0).await? {
        let tag: Tag = name.parse().map_err(|error| {
            Error::failed("refused", format!("{repository}: the registry lists a bad tag: {error}"))
        })?;
        let reference = Reference { repository: repository.clone(), tag: Some(tag), digest: None };
        // Not there any more: it went with the digest of an earlier tag.
        let Some(digest) = digest_of(session, repository, &reference.selector()).await? else {
            continue;
        };
        let deleted_by = if dry_run { None } else { Some(delete(session, &reference).await?) };
        let digest = digest.to_string();
        gone.insert(digest.clone());
        let doomed =
            Doomed { repository: repository.to_string(), tag: Some(name), digest, shared_with: Vec::new(), deleted_by };
        tell(context, if dry_run { "would delete" } else { "deleted" }, &doomed)?;
    }
    context.notes.note(&format!("{repository}: {}", count(gone.len(), "manifest")));
    Ok(())
}

fn name(doomed: &Doomed) -> String {
    let Doomed { repository, tag, digest, .. } = doomed;
    tag.as_ref().map_or_else(|| format!("{repository}@{digest}"), |tag| format!("{repository}:{tag} ({digest})"))
}

fn tell(context: &mut Context, what: &str, doomed: &Doomed) -> Result {
    if context.format().is_json() {
        return context.output.compact(doomed);
    }
    context.output.line(&format!("{what} {}", name(doomed)))?;
    match (doomed.deleted_by, doomed.shared_with.as_slice()) {
        (Some(BY_TAG), _) | (_, []) => Ok(()),
        (Some(_), tags) => context.output.line(&format!("and with the digest the tags {}", tags.join(", "))),
        (None, tags) => {
            context.output.line(&format!("and, where the registry deletes digests only, the tags {}", tags.join(", ")))
        }
    }
}

/// Asks on the terminal. Anything but a yes is a no.
async fn confirmed(context: &mut Context, doomed: &Doomed) -> Result<bool> {
    if !doomed.shared_with.is_empty() {
        let tags = doomed.shared_with.join(", ");
        context.notes.note(&format!(
            "these tags name the same digest, and go with it where the registry deletes digests only: {tags}"
        ));
    }
    context.notes.ask(&format!("delete {}? [y/N] ", name(doomed)));
    let read = || {
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
    };
    // The person may think it over; a signal must still end the command.
    let answer = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Error::failed("io", format!("reading the answer failed: {error}")))?
        .map_err(|error| Error::failed("io", format!("reading the answer failed: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
