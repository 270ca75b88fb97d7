//! What registries have, a page at a time, and when images were made.

use super::select::{self, Decision, Tag};
use super::{Order, Rule};
use crate::clock::{Clock, UnixMillis};
use crate::job::Class;
use crate::oci::{Content, Descriptor, Digest, Manifest, Platform, Reference, Repository, Selector};
use crate::registry::{Error, Session, TagCursor};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;

/// Most names of one list: a registry with more is a fault, and memory is not endless.
pub const NAMES_MOST: usize = 1_000_000;
/// Pages in a row without a new name after which a registry is taken to run in a circle.
const STALE_PAGES_MOST: usize = 8;
/// Images whose configurations are read at once.
const CONFIGS_AT_ONCE: usize = 8;
/// Largest configuration that is read for its time, bytes.
const CONFIG_LIMIT: u64 = 4 * 1024 * 1024;

/// The tags of a repository, each once, in the registry's order; at least `limit` of them if there are that many (0: all).
///
/// # Errors
/// Those of the registry; too many tags; pages that bring nothing new.
pub async fn tags(session: &Session, repository: &Repository, limit: usize) -> Result<Vec<String>, Error> {
    let mut names = Names::default();
    let mut cursor = None;
    loop {
        let (page, next) = session.list_tags(repository, cursor).await?;
        cursor = names.add(&format!("tags of {repository}"), page, next)?;
        if cursor.is_none() || (limit > 0 && names.all.len() >= limit) {
            return Ok(names.all);
        }
    }
}

/// The names of all repositories of a registry, each once, in the registry's order.
///
/// # Errors
/// As for [`tags`].
pub async fn catalog(session: &Session, host: &str) -> Result<Vec<String>, Error> {
    let mut names = Names::default();
    let mut cursor = None;
    loop {
        let (page, next) = session.list_repositories(host, cursor).await?;
        cursor = names.add(&format!("repositories of {host}"), page, next)?;
        if cursor.is_none() {
            return Ok(names.all);
        }
    }
}

#[derive(Default)]
struct Names {
    all: Vec<String>,
    known: HashSet<String>,
    stale: usize,
}

impl Names {
    /// Takes a page; the cursor of the next when there is one.
    fn add(&mut self, what: &str, page: Vec<String>, next: Option<TagCursor>) -> Result<Option<TagCursor>, Error> {
        let before = self.all.len();
        for name in page {
            if self.known.insert(name.clone()) {
                self.all.push(name);
            }
        }
        self.stale = if self.all.len() == before { self.stale + 1 } else { 0 };
        if self.all.len() > NAMES_MOST {
            return Err(Error::refused(format!("{what}: there are more than {NAMES_MOST}")));
        }
        if self.stale >= STALE_PAGES_MOST && next.is_some() {
            return Err(Error::refused(format!("{what}: the registry answers with the same pages again and again")));
        }
        Ok(next)
    }
}

/// The repositories of a rule, with the decision for each: those that are named, or all that the registry lists.
///
/// # Errors
/// The catalog cannot be read.
pub async fn repositories(session: &Session, rule: &Rule) -> Result<Vec<Decision>, Error> {
    let names = match rule.named() {
        Some(names) => names,
        None => catalog(session, &rule.registry).await?,
    };
    let mut seen = HashSet::new();
    let decisions = names.iter().filter(|name| seen.insert(name.as_str())).map(|name| select::repository(rule, name));
    Ok(decisions.collect())
}

/// The tags of a repository of a rule, with the decision for each.
///
/// # Errors
/// The tags, or the images whose time matters, cannot be read.
pub async fn decide(
    session: &Session,
    rule: &Rule,
    repository: &Repository,
    clock: &Clock,
) -> Result<Vec<Decision>, Error> {
    let names = if rule.tags.names.is_empty() {
        // Only what is needed, where the first so many are kept.
        let first = match (rule.tags.newest, rule.tags.newest_by) {
            (Some(count), Order::Listed) if is_all_but_count(rule) => usize::try_from(count).unwrap_or(0),
            _ => 0,
        };
        tags(session, repository, first).await?
    } else {
        let mut seen = HashSet::new();
        rule.tags.names.iter().filter(|name| seen.insert(name.as_str())).cloned().collect()
    };
    let mut all: Vec<Tag> = names.into_iter().map(|name| Tag { name, created: None }).collect();
    if rule.tags.needs_creation() {
        let wanted: Vec<usize> = (0..all.len()).filter(|at| select::by_name(&rule.tags, &all[*at].name).kept).collect();
        let looks = wanted.into_iter().map(|at| {
            let name = all[at].name.clone();
            async move { created(session, rule, repository, &name).await.map(|created| (at, created)) }
        });
        let times: Vec<(usize, Option<UnixMillis>)> =
            stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(CONFIGS_AT_ONCE).try_collect().await?;
        for (at, created) in times {
            all[at].created = created;
        }
    }
    Ok(select::tags(&rule.tags, &all, clock.now()))
}

const fn is_all_but_count(rule: &Rule) -> bool {
    let tags = &rule.tags;
    tags.include.is_empty() && tags.exclude.is_empty() && tags.semver.is_none() && tags.younger_than_secs.is_none()
}

/// When an image was made, as its configuration says; of an index that of its first image. None: it does not say, or has gone
/// since it was listed.
async fn created(
    session: &Session,
    rule: &Rule,
    repository: &Repository,
    tag: &str,
) -> Result<Option<UnixMillis>, Error> {
    let Ok(Reference { tag: Some(tag), .. }) = format!("{repository}:{tag}").parse::<Reference>() else {
        return Ok(None);
    };
    let config = match config_of(session, rule, repository, &Selector::Tag(tag)).await {
        Ok(Some(config)) => config,
        Ok(None) => return Ok(None),
        Err(error) if error.class() == Class::Absent => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut body = session.get_blob(repository, &config).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > CONFIG_LIMIT {
            return Ok(None);
        }
    }
    let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let time = config.get("created").and_then(serde_json::Value::as_str);
    let time = time.and_then(|time| chrono::DateTime::parse_from_rfc3339(time).ok());
    // The epoch and what lies before are what reproducible builds write in the place of a time.
    Ok(time.map(|time| UnixMillis(time.timestamp_millis())).filter(|time| time.0 > 0))
}

/// The configuration of what a selector names: of an index that of the first image for the rule's platforms, or of its first.
async fn config_of(
    session: &Session,
    rule: &Rule,
    repository: &Repository,
    selector: &Selector,
) -> Result<Option<Digest>, Error> {
    let Some(manifest) = manifest(session, repository, selector).await? else { return Ok(None) };
    let child = match manifest.content {
        Content::Image { config, .. } => return Ok(config.map(|config| config.digest)),
        Content::Index { manifests, .. } => {
            let wanted: Vec<Platform> =
                rule.options.platforms.iter().filter_map(|platform| platform.parse().ok()).collect();
            let is_wanted = |descriptor: &&Descriptor| {
                descriptor
                    .platform
                    .as_ref()
                    .is_some_and(|platform| wanted.iter().any(|want| want.to_string() == platform.to_string()))
            };
            manifests.iter().find(is_wanted).or_else(|| manifests.first()).map(|descriptor| descriptor.digest.clone())
        }
    };
    let Some(child) = child else { return Ok(None) };
    let below = manifest_of(session, repository, &Selector::Digest(child)).await?;
    Ok(below)
}

async fn manifest_of(session: &Session, repository: &Repository, selector: &Selector) -> Result<Option<Digest>, Error> {
    Ok(match manifest(session, repository, selector).await?.map(|manifest| manifest.content) {
        Some(Content::Image { config: Some(config), .. }) => Some(config.digest),
        _ => None,
    })
}

/// None: it is no manifest that is known.
async fn manifest(session: &Session, repository: &Repository, selector: &Selector) -> Result<Option<Manifest>, Error> {
    let fetched = session.get_manifest(repository, selector).await?;
    Ok(Manifest::parse(fetched.bytes, fetched.content_type.as_deref(), None).ok())
}
